"""MSN's features beside those of the encoder it started from."""

from rushlight.jobs.claims.members import member

CLAIM = member(
    "msn",
    headline="ImageNet, ViT-S/16: 76.9 % by a linear probe; ViT-B/4 with 1 % of the labels: 75.7 %",
    recipe="msn(focal=2)",
    encoder="vit64-p7",
)
