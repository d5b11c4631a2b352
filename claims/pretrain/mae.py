"""MAE's features beside those of the encoder it started from."""

from rushlight.jobs.claims.members import member

CLAIM = member(
    "mae",
    headline="ImageNet, ViT-B/16, 1600 epochs: 83.6 % top-1 fine-tuned, 67.8 % by a linear probe",
    encoder="vit64-p7+mean",
)
