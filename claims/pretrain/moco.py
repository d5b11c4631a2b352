"""MoCo-v2's features beside those of the encoder it started from."""

from rushlight.jobs.claims.members import member

CLAIM = member(
    "moco",
    headline="ImageNet, ResNet-50, 800 epochs at a batch of 256: 71.1 % top-1 by a linear probe",
)
