"""Jobs that make something to read: the report of a face lab, and a sweep of blends between two generators."""

from __future__ import annotations

import io
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mien.app.jobs.work import Made, Packed, Request, Work
from mien.errors import InputError
from mien.marks import Origin

if TYPE_CHECKING:
    from mien.app.lab.people import Someone
    from mien.app.lab.work import Lab

__all__ = ["LabReport", "SweepBlends"]

MAX_PHOTOS, MAX_EDIT_STEPS = 6, 200
STYLE_SEEDS = (5, 8, 12)
SHOWN = ("index.html", "report.json", "figures")  # of the report's folder; the rest is for going on with it


@dataclass(frozen=True, kw_only=True)
class LabReport(Request):
    """Make the report of a face lab of a few people, one photo of each: a ZIP with a page, its figures and numbers."""

    op: ClassVar[str] = "lab"
    num_pictures: ClassVar[tuple[int, int]] = (1, MAX_PHOTOS)

    edit_steps: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.edit_steps <= MAX_EDIT_STEPS:
            raise InputError(f"{self.edit_steps} steps of an edit", hint=f"from 1 to {MAX_EDIT_STEPS}")

    def run(self, work: Work) -> list[Packed]:
        from mien.app.lab.people import read_people
        from mien.app.lab.report import write_report
        from mien.app.terminal.items import Failures
        from mien.images import save_png

        with tempfile.TemporaryDirectory() as folder:
            people, outdir = Path(folder) / "people", Path(folder) / "report"
            people.mkdir()
            outdir.mkdir()
            for i, picture in enumerate(work.pictures):
                save_png(picture, people / f"person {chr(ord('A') + i)}.png", None)
            failures = Failures()
            found = read_people(work.studio, people, failures, most=1)
            write_report(self._lab(work, outdir, found), people, failures.of)
            return [Packed(_zip(outdir))]

    def _lab(self, work: Work, outdir: Path, people: list[Someone]) -> Lab:
        from mien.app.lab.work import Lab, LabConfig
        from mien.judges import identity_judge, perceptual_judge

        studio = work.studio
        styles = {f"seed {seed}": studio.seed_code(seed) for seed in STYLE_SEEDS}
        config = LabConfig(method="encoder", cycles=0, edit_steps=self.edit_steps)
        looks, identity = perceptual_judge(on_step=work), identity_judge(on_step=work)
        return Lab(studio, people, styles, outdir, looks, identity, config, work)


def _zip(folder: Path) -> bytes:
    """Pack a report without the codes that it was made of."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and name.parts[0] in SHOWN:
                archive.write(path, Path("report") / name)
    return file.getvalue()


@dataclass(frozen=True, kw_only=True)
class SweepBlends(Request):
    """Blend a style of the package into the faces' generator in many ways, as one figure to choose from."""

    op: ClassVar[str] = "sweep"
    num_pictures: ClassVar[tuple[int, int]] = (0, 0)

    style: str
    seeds: tuple[int, ...] = (1, 2, 3, 4)

    def __post_init__(self) -> None:
        from mien.app.artists import adapted_styles
        from mien.edits.sweep import SweepConfig

        if self.style not in (known := adapted_styles()):
            raise InputError(f"no generator named {self.style!r}", hint=f"known: {', '.join(known)}")
        if len(self.seeds) > MAX_PHOTOS:
            raise InputError(f"{len(self.seeds)} people", hint=f"from 2 to {MAX_PHOTOS}")
        SweepConfig(seeds=self.seeds)

    def run(self, work: Work) -> list[Made]:
        from mien.app.figures.blends import sweep_figure
        from mien.edits.sweep import SweepConfig

        found = work.studio.sweep(self.style, SweepConfig(seeds=self.seeds), on_step=work)
        return [Made(sweep_figure(found, work.studio.network.stem), Origin.INVENTED)]
