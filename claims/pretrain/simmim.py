"""SimMIM's features beside those of the encoder it started from."""

from rushlight.jobs.claims.members import member

CLAIM = member(
    "simmim",
    headline="ImageNet, ViT-B/16, 800 epochs: 83.8 % top-1 fine-tuned",
    encoder="vit64-p7+mean",
)
