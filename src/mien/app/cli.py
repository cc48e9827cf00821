"""The command line: each command reads what was typed, calls the studio once, and shows the result.

Exit codes: 0 done; 2 wrong usage; 3 some inputs of several failed, the others are done; 130 stopped; 1 anything else.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mien import __version__
from mien.app import train
from mien.app.items import Failures, check_out, check_stems
from mien.app.screen import Bars, note, show_error, show_unexpected
from mien.app.settings import DEFAULT_NETWORK
from mien.app.text import parse_layers, parse_seeds, parse_settings
from mien.errors import Cancelled, InputError, MienError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mien.app.studio import Studio
    from mien.faces.align import Crop
    from mien.inversion.code import Inversion

__all__ = ["app", "main"]

BATCH = 8  # faces that are optimised together


class Commands(TyperGroup):
    """The one place where errors become words and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            show_error(Cancelled("stopped"))
            raise typer.Exit(Cancelled.exit_code) from None
        except MienError as err:
            show_error(err)
            raise typer.Exit(err.exit_code) from err
        except (
            OSError,
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as err:
            if isinstance(err, BrokenPipeError) or type(err).__module__.startswith("typer"):
                raise
            show_unexpected(err)
            raise typer.Exit(1) from err


app = typer.Typer(
    name="mien",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Faces with StyleGAN: find, align, invert, edit, paste back.",
)

app.add_typer(train.app, name="train")

Photos = Annotated[list[Path], typer.Argument(help="Photos.", metavar="PHOTO...", show_default=False)]
Outdir = Annotated[Path, typer.Option("--outdir", help="Folder for the results; made if missing.")]
Out = Annotated[Path, typer.Option("--out", help="PNG to write.")]
Network = Annotated[str, typer.Option("--network", help="Generator: a bundled name or a .safetensors file.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option("--precision", help="fp32 (exact) or bf16 (fast where the hardware has it).")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")]
Method = Annotated[str, typer.Option("--method", help="encoder (one look) or optimize (starts from the encoder).")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Most steps of the optimiser.")]
FaceIdx = Annotated[int | None, typer.Option("--face", min=0, help="Only the face of this number, 0 = largest.")]
Aligned = Annotated[bool, typer.Option("--aligned", help="The inputs are FFHQ crops already; results are renders.")]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"mien {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)


def _studio(network: str, device: str, precision: str, seed: int) -> Studio:
    from mien.app.studio import Studio

    return Studio(network, device=device, precision=precision, seed=seed)


def _finish(failures: Failures, num_inputs: int) -> None:
    """List what failed, if anything did, and leave with exit code 3."""
    if not failures.of:
        return
    for err in failures.of.values():
        show_error(err)
    note(f"{len(failures.of)} of {num_inputs} inputs failed: {', '.join(failures.of)}")
    raise typer.Exit(Failures.exit_code)


# ---- Photos ---------------------------------------------------------------------------------------------------------


@app.command()
def detect(
    photos: Photos,
    as_json: Annotated[bool, typer.Option("--json", help="Boxes, points and scores as JSON.")] = False,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Find every face, largest first.

    Example: mien detect group.jpg --json
    """
    from mien.images import open_photo

    studio, failures = _studio(network, device, precision, seed), Failures()
    found: list[dict[str, Any]] = []
    for path in _each(photos, "detect"):
        with failures.keep(path):
            photo = open_photo(path)
            faces = [
                {"box": f.box.tolist(), "landmarks": f.landmarks.tolist(), "score": f.score}
                for f in studio.detect(photo)
            ]
            found.append({"photo": str(path), "width": photo.width, "height": photo.height, "faces": faces})
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        for entry in found:
            for i, face in enumerate(entry["faces"]):
                box = " ".join(f"{v:.0f}" for v in face["box"])
                typer.echo(f"{entry['photo']}  face {i}  box {box}  score {face['score']:.2f}")
            if not entry["faces"]:
                typer.echo(f"{entry['photo']}  no face")
    _finish(failures, len(photos))


@app.command()
def align(
    photos: Photos,
    outdir: Outdir,
    size: Annotated[
        int | None, typer.Option("--size", min=1, max=8192, help="Side, px; default: the network's.")
    ] = None,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Cut out every face as FFHQ does: <stem>_<i>.png and <stem>_<i>.json.

    Example: mien align group.jpg --outdir crops
    """
    from mien.faces.align import save_crop
    from mien.images import open_photo, save_png

    check_stems(photos)
    studio, failures = _studio(network, device, precision, seed), Failures()
    for path in _each(photos, "align"):
        with failures.keep(path):
            for i, crop in enumerate(studio.align(open_photo(path), size_px=size, source=path.name)):
                out = outdir / f"{path.stem}_{i}.png"
                check_out(out, photos)
                save_png(crop.image, out)
                save_crop(crop, out.with_suffix(".json"), photo=path)
                typer.echo(out)
    _finish(failures, len(photos))


@app.command()
def paste(
    crops: Annotated[list[Path], typer.Argument(help="Crops with their .json beside them.", metavar="CROP...")],
    outdir: Outdir,
) -> None:
    """Put every crop back into the photo that its .json names: <stem>.png.

    Example: mien paste crops/group_0.png --outdir pasted
    """
    from mien.faces.align import find_photo, load_crop, paste_back
    from mien.images import open_photo, save_png, to_tensor

    check_stems(crops)
    failures = Failures()
    for path in _each(crops, "paste"):
        with failures.keep(path):
            out = outdir / f"{path.stem}.png"
            image, record = open_photo(path), path.with_suffix(".json")
            crop, photo = load_crop(record, image), find_photo(record)
            check_out(out, [*crops, photo])
            save_png(paste_back(open_photo(photo), crop, to_tensor(image)), out)
            typer.echo(out)
    _finish(failures, len(crops))


# ---- Codes ----------------------------------------------------------------------------------------------------------


def _each(paths: Sequence[Path], stage: str) -> Iterator[Path]:
    """Go through paths behind a bar."""
    from mien.report import Step

    with Bars() as bars:
        for i, path in enumerate(paths):
            bars(Step(stage, i, len(paths)))
            yield path


def _crops(
    studio: Studio, photo: Image, path: Path, aligned: bool, face: int | None
) -> list[tuple[Tensor, Crop | None]]:
    """Return img [1, 3, H, W] of every face, and where it was cut out; one without a crop for an aligned picture."""
    if aligned:
        return [(studio.aligned(photo, source=path.name), None)]
    return [(crop.img, crop) for crop in studio.align(photo, source=path.name, face=face)]


@app.command()
def invert(
    photos: Photos,
    outdir: Outdir,
    method: Method = "optimize",
    steps: Steps = None,
    aligned: Aligned = False,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Find the code of every face: <stem>_<i>.safetensors, and <stem>_<i>.png as it renders.

    Example: mien invert portrait.jpg --outdir codes
    """
    import torch

    from mien.images import open_photo, save_png
    from mien.inversion.code import save_inversion

    check_stems(photos)
    studio, failures = _studio(network, device, precision, seed), Failures()
    _check_method(method)
    waiting: list[tuple[Path, Tensor, Crop | None]] = []
    for path in _each(photos, "align"):
        with failures.keep(path):
            for i, (img, crop) in enumerate(_crops(studio, open_photo(path), path, aligned, None)):
                out = outdir / f"{path.stem}_{i}.png"
                check_out(out, photos)
                waiting.append((out, img, crop))
    with Bars() as bars:
        for first in range(0, len(waiting), BATCH):
            some = waiting[first : first + BATCH]
            bars.say(f"faces {first + 1}-{first + len(some)} of {len(waiting)}:")
            img = torch.cat([img for _, img, _ in some])
            for (out, _, crop), inversion in zip(
                some, studio.invert(img, method=method, num_steps=steps, on_step=bars), strict=True
            ):
                inversion = inversion.from_crop({} if crop is None else crop.record)
                save_inversion(inversion, out.with_suffix(".safetensors"))
                save_png(studio.picture(inversion), out)
                typer.echo(out)
    _finish(failures, len(photos))


def _check_method(method: str) -> None:
    from mien.app.settings import METHODS

    if method not in METHODS:
        raise InputError(f"no method named {method!r}", hint=f"known: {', '.join(METHODS)}")


def _is_code(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _code(studio: Studio, text: str, *, aligned: bool, method: str, steps: int | None, bars: Bars) -> Inversion:
    """Read one face's code: of seed:N, of a .safetensors, or of the largest face of a photo."""
    from mien.images import open_photo
    from mien.inversion.code import load_inversion

    if text.startswith("seed:"):
        seeds = parse_seeds(text.removeprefix("seed:"))
        if len(seeds) != 1:
            raise InputError(f"{text} is more than one person", hint="write for example seed:7")
        return studio.seed_code(seeds[0])
    path = Path(text)
    if _is_code(path):
        inversion = load_inversion(path)
        studio.check(inversion)
        return inversion
    img, _ = _crops(studio, open_photo(path), path, aligned, None if aligned else 0)[0]
    return studio.invert(img, method=method, num_steps=steps, on_step=bars)[0]


def _is_photo(text: str) -> bool:
    return not text.startswith("seed:") and not _is_code(Path(text))


def _change(
    studio: Studio,
    source: str,
    change: Any,
    *,
    aligned: bool,
    face: int | None,
    method: str,
    steps: int | None,
    bars: Bars,
) -> Image:
    """Invert the faces of `source`, change their codes, and put them back; without a photo, the render itself."""
    import torch

    from mien.images import open_photo

    if aligned or not _is_photo(source):
        code = _code(studio, source, aligned=aligned, method=method, steps=steps, bars=bars)
        return studio.picture(change(code))
    path = Path(source)
    photo = open_photo(path)
    crops = studio.align(photo, source=path.name, face=face)
    for first in range(0, len(crops), BATCH):
        some = crops[first : first + BATCH]
        bars.say(f"faces {first + 1}-{first + len(some)} of {len(crops)}:")
        codes = studio.invert(torch.cat([c.img for c in some]), method=method, num_steps=steps, on_step=bars)
        for crop, code in zip(some, codes, strict=True):
            photo = studio.paste(photo, crop, change(code), code)
    return photo


@app.command()
def edit(
    photo: Annotated[str, typer.Argument(help="A photo, or a code that `mien invert` wrote.", metavar="PHOTO")],
    settings: Annotated[
        list[str], typer.Option("--set", help="Direction and strength, say smile=1.5.", metavar="NAME=X")
    ],
    out: Out,
    face: FaceIdx = None,
    method: Method = "optimize",
    steps: Steps = None,
    aligned: Aligned = False,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Change every face of a photo along directions, in standard deviations, and put it back at full size.

    Example: mien edit portrait.jpg --set smile=1.5 --set age=-1 --out smiling.png
    """
    from mien.images import save_png

    strengths = parse_settings(settings)
    check_out(out, [Path(photo)])
    _check_method(method)
    studio = _studio(network, device, precision, seed)
    for name, strength in strengths.items():
        low, high = studio.directions[name].safe_range
        if not low <= strength <= high:
            note(f"warning: {name}={strength:g} is beyond {low:g} to {high:g}, where faces stay themselves")
    with Bars() as bars:
        image = _change(
            studio,
            photo,
            lambda code: studio.edit(code, strengths),
            aligned=aligned,
            face=face,
            method=method,
            steps=steps,
            bars=bars,
        )
    save_png(image, out)
    typer.echo(out)


@app.command()
def mix(
    photo: Annotated[str, typer.Argument(help="A photo, a .safetensors code or seed:N.", metavar="PHOTO")],
    style: Annotated[str, typer.Argument(help="Likewise; of a photo the largest face.", metavar="STYLE")],
    layers: Annotated[str, typer.Option("--layers", help="Rows from STYLE: 8- is 8 to the last, 0-3,6 some.")],
    out: Out,
    face: FaceIdx = None,
    method: Method = "optimize",
    steps: Steps = None,
    aligned: Aligned = False,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Take rows of another person's code: the first turn and shape the face, the last colour it.

    Example: mix portrait.jpg seed:7 --layers 6- --out mixed.png
    """
    from mien.images import save_png

    check_out(out, [Path(text) for text in (photo, style) if not text.startswith("seed:")])
    _check_method(method)
    studio = _studio(network, device, precision, seed)
    rows = parse_layers(layers, studio.G.num_ws)
    options: dict[str, Any] = dict(aligned=aligned, method=method, steps=steps)
    with Bars(prefix="style") as bars:
        other = _code(studio, style, bars=bars, **options)
        bars.say("photo")
        image = _change(studio, photo, lambda code: studio.mix(code, other, rows), face=face, bars=bars, **options)
    save_png(image, out)
    typer.echo(out)


@app.command()
def generate(
    seeds: Annotated[str, typer.Option("--seeds", help="Say 1,2,5-10.")],
    outdir: Outdir,
    psi: Annotated[float, typer.Option("--psi", help="Truncation: 1 all variety, 0 the mean face.")] = 0.7,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Invent people: seed<N>.png.

    Example: mien generate --seeds 1-8 --psi 0.7 --outdir people
    """
    from mien.images import save_png
    from mien.report import Step

    numbers = parse_seeds(seeds)
    studio = _studio(network, device, precision, seed)
    with Bars() as bars:
        for i, number in enumerate(numbers):
            out = outdir / f"seed{number}.png"
            save_png(studio.generate([number], psi=psi)[0], out)
            typer.echo(out)
            bars(Step("generate", i + 1, len(numbers)))


@app.command()
def demo(
    outdir: Outdir = Path("out/demo"),
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Show everything once, on a real photo and on invented people; the figure is overview.png.

    Example: mien demo --outdir out/demo
    """
    from mien.app.demo import run_demo

    studio = _studio(network, device, precision, seed)
    with Bars() as bars:
        report = run_demo(studio, outdir, bars)
    times: Any = report["times_s"]
    note(f"done in {times['all']:.0f} s. Look at")
    typer.echo(outdir / "overview.png")
    note(f"and at the other pictures in {outdir}; seeds, hashes, losses and times are in {outdir / 'report.json'}")


def main() -> None:
    """Start the command line."""
    app()
