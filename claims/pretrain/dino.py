"""DINO's features beside those of the encoder it started from."""

from rushlight.bench.members import member

CLAIM = member(
    "dino",
    headline="ImageNet, ViT-S/16, 100 epochs: 69.3 % by k-NN and 74.0 % by a linear probe",
    recipe="dino(local=2)",
    encoder="vit64-p7",
)
