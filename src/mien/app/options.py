"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.settings import DEFAULT_NETWORK, DEVICES, PRECISIONS

if TYPE_CHECKING:
    from mien.app.studio import Studio
    from mien.app.subjects import Subjects, Talk

__all__ = [
    "EDITABLE",
    "ENGINE",
    "FINDING",
    "TUNED",
    "Aligned",
    "Class",
    "Commercial",
    "Device",
    "Engine",
    "FaceIdx",
    "Finding",
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


@dataclass(frozen=True)
class Engine:
    """The generator that a command works with, and what computes it; see `spread`."""

    network: Network = DEFAULT_NETWORK
    device: Device = "auto"
    precision: Precision = "fp32"
    seed: Seed = 0

    def studio(self) -> Studio:
        """Return the studio of these options."""
        from mien.app.studio import Studio

        return Studio(self.network, device=self.device, precision=self.precision, seed=self.seed)


@dataclass(frozen=True)
class Finding:
    """How a command finds the codes of faces; see `spread`."""

    method: Method = "optimize"
    steps: Steps = None
    aligned: Aligned = False

    def subjects(self, studio: Studio, bars: Talk) -> Subjects:
        """Return who reads and puts back people with these options."""
        from mien.app.subjects import Subjects

        return Subjects(studio, bars, method=self.method, steps=self.steps, aligned=self.aligned)

    def check(self, out: Path, *sources: str, engine: Engine, face: int | None, suffix: str = ".png") -> None:
        """Refuse before any work what `check_subjects` refuses."""
        from mien.app.subjects import check_subjects

        check_subjects(
            out,
            *sources,
            method=self.method,
            network=engine.network,
            face=face,
            aligned=self.aligned,
            suffix=suffix,
        )


ENGINE, FINDING = Engine(), Finding()
EDITABLE, TUNED = Finding(method="editable"), Finding(method="pti")
