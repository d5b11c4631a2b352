"""The options that several commands share, by what they are about: the data, where a training starts, the machine."""

from __future__ import annotations

from typing import Annotated

import typer

DATA, START, MACHINE = "Data", "Start", "Machine"

# Data
Source = Annotated[
    str, typer.Argument(metavar="PATH", help="A folder of images, a COCO file, `hf:NAME`, or `fashion`.")
]
Labels = Annotated[
    str | None, typer.Option(help="A CSV, Parquet or COCO JSON file with the labels.", rich_help_panel=DATA)
]
Masks = Annotated[str | None, typer.Option(help="The folder with a PNG mask for each image.", rich_help_panel=DATA)]
Depth = Annotated[
    str | None,
    typer.Option(
        help="The folder with a depth map for each image: PNG of 16 bits, NPY or EXR.",
        metavar="FOLDER",
        rich_help_panel=DATA,
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        help="The column of what belongs together, such as patient: never on both sides of a split.",
        metavar="COLUMN",
        rich_help_panel=DATA,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="Side of the packed images in pixels, or HEIGHTxWIDTH; by default chosen by the device.",
        metavar="N",
        rich_help_panel=DATA,
    ),
]
Fit = Annotated[
    str, typer.Option(help="How images are brought to that size: squash, crop or pad.", rich_help_panel=DATA)
]
Cache = Annotated[
    str | None,
    typer.Option(help="Folder for packed images; by default the user's cache folder.", rich_help_panel=DATA),
]

# Start
Encoder = Annotated[
    str,
    typer.Option("--encoder", help="conv16, conv32, vit96, any timm model, or auto.", rich_help_panel=START),
]
Weights = Annotated[
    str | None, typer.Option(help="A safetensors file with the encoder's weights.", rich_help_panel=START)
]
Pretrained = Annotated[
    bool,
    typer.Option("--pretrained", help="Fetch the encoder's pretrained weights from the Hub.", rich_help_panel=START),
]
Task = Annotated[
    str | None,
    typer.Option(help="What to learn, the name of a task; by default what is known.", rich_help_panel=START),
]
Budget = Annotated[
    str,
    typer.Option("--budget", help="Image passes (200k) or time (10m) for each training.", rich_help_panel=START),
]
Seed = Annotated[int, typer.Option(help="The seed of every random draw.", rich_help_panel=START)]

# Machine
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", rich_help_panel=MACHINE)]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Trials side by side; by default one a core; 0: one after another, in this process.",
        rich_help_panel=MACHINE,
    ),
]
