"""MoCo-v3's features beside those of the vision transformer it started from."""

from rushlight.jobs.claims.members import member

CLAIM = member(
    "moco-v3",
    headline="ImageNet, ViT-B/16, 300 epochs: 76.7 % top-1 by a linear probe, 83.2 % when fine-tuned",
    encoder="vit64-p7",
)
