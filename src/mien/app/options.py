"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mien.app.settings import DEVICES, PRECISIONS

__all__ = [
    "Aligned",
    "Class",
    "Commercial",
    "Device",
    "FaceIdx",
    "Method",
    "Network",
    "Out",
    "Outdir",
    "Photos",
    "Precision",
    "PresetPrecision",
    "PresetSeed",
    "Psi",
    "RecipeOut",
    "Seed",
    "Steps",
    "Track",
]

PRECISION_HELP = f"{PRECISIONS[0]} (exact) or {PRECISIONS[1]} (fast where the hardware has it)"
SEED_HELP = "Of everything random"

Network = Annotated[
    str, typer.Option("--network", help="Generator: a name (mien models list), a file or hf://owner/name.")
]
Device = Annotated[str, typer.Option("--device", help=f"{', '.join(DEVICES[:-1])} or {DEVICES[-1]}.")]
Precision = Annotated[str, typer.Option("--precision", help=f"{PRECISION_HELP}.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help=f"{SEED_HELP}.")]
PresetPrecision = Annotated[str | None, typer.Option("--precision", help=f"{PRECISION_HELP}; default: the setting's.")]
PresetSeed = Annotated[int | None, typer.Option("--seed", min=0, help=f"{SEED_HELP}; default: the setting's.")]

Photos = Annotated[list[Path], typer.Argument(help="Photos.", metavar="PHOTO...", show_default=False)]
Outdir = Annotated[Path, typer.Option("--outdir", help="Folder for the results; made if missing.")]
Out = Annotated[Path, typer.Option("--out", help="PNG to write.")]
RecipeOut = Annotated[
    Path | None, typer.Option("--recipe", help="Recipe to write, .json: what was done, for mien replay.")
]
FaceIdx = Annotated[int | None, typer.Option("--face", min=0, help="Only the face of this number, 0 = largest.")]
Aligned = Annotated[bool, typer.Option("--aligned", help="The inputs are FFHQ crops already; results are renders.")]
Method = Annotated[
    str, typer.Option("--method", help="encoder (one look), optimize, pti or hybrid; or START+REFINEMENT.")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Most steps of the optimiser.")]
Psi = Annotated[float, typer.Option("--psi", help="Truncation: 1 all variety, 0 the mean face.")]
Commercial = Annotated[
    bool, typer.Option("--commercial", help="Refuse weights whose terms forbid commercial use, or are not known.")
]
Class = Annotated[int | None, typer.Option("--class", min=0, help="Class, of a generator that has classes.")]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", help="Also tell jsonl, tensorboard or mlflow, or one with its address: mlflow:URI."),
]
