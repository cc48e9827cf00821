"""`mien style`: people in other pictures' styles or drawn by another generator, as a table and in their photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import ENGINE, FINDING, Engine, FaceIdx, Finding
from mien.app.recipes import keep
from mien.app.subjects import SEED, Scene, Subjects
from mien.app.terminal.items import Failures, check_network, check_out, check_outdir
from mien.app.terminal.screen import Bars, note
from mien.app.terminal.spread import spread
from mien.app.terminal.text import parse_layers
from mien.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mien.app.studio import Studio
    from mien.inversion.code import Inversion
    from mien.nets.generator import Generator

__all__ = ["Look", "app", "looks_of", "names_of", "table"]

PRESET, TILE_PX, NAME_LENGTH = "lab-style", 128, 14

app = typer.Typer()


@dataclass(frozen=True, eq=False)
class Look:
    """One way to draw everybody: its name, its own picture if it has one, and code to img [1, 3, H, W]."""

    name: str
    shown: Image | None
    draw: Callable[[Inversion], Tensor]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How styles are taken: which rows, what share of a face's own is kept in them, and whose colour."""

    rows: list[int]
    psi: float
    keep_colour: bool


def names_of(sources: Sequence[str]) -> list[str]:
    """Return a name for each source, which labels it and names its files.

    Raises:
        InputError: two would have one name.

    >>> names_of(["photos/anna.jpg", "seed:7"])
    ['anna', 'seed7']
    """
    names = [text.replace(":", "") if text.startswith(SEED) else Path(text).stem for text in sources]
    for i, name in enumerate(names):
        if name.casefold() in (other.casefold() for other in names[:i]):
            raise InputError(
                f"two pictures have the name {name}", hint="rename one: they label the table and its files"
            )
    return names


def looks_of(
    studio: Studio, styles: Iterable[tuple[str, Inversion]], by: Generator | None, mixing: Mixing, *, force: bool
) -> list[Look]:
    """Return the looks of styles, drawn by the other generator where there is one; without styles its own look."""
    from mien.edits.blend import MIN_COSINE
    from mien.edits.style import with_chroma_of

    def draw(code: Inversion) -> Tensor:
        return studio.render(code) if by is None else studio.decode(code, by, min_cosine=None if force else MIN_COSINE)

    def look(style: Inversion | None) -> Callable[[Inversion], Tensor]:
        def drawn(code: Inversion) -> Tensor:
            img = draw(code if style is None else studio.restyle(code, style, mixing.rows, mixing.psi))
            return with_chroma_of(img, studio.render(code)) if mixing.keep_colour else img

        return drawn

    found = [Look(name, studio.picture(style), look(style)) for name, style in styles]
    return found or [Look("drawn anew", None, look(None))]


def table(studio: Studio, people: Sequence[tuple[str, Scene]], looks: Sequence[Look]) -> Image:
    """Draw everybody in every look: the styles above; photo, projection and results of each person in a row."""
    import PIL.Image

    from mien.images import grid, to_pil

    side = max(TILE_PX, studio.G.img_resolution)
    blank = PIL.Image.new("RGB", (side, side), "white")
    names, tiles = [], []
    if any(look.shown for look in looks):
        names, tiles = [""], [blank, blank, *(look.shown or blank for look in looks)]
    for name, scene in people:
        for i, (crop, code) in enumerate(scene.faces):
            names.append(name if len(scene.faces) == 1 else f"{name} {i}")
            render = studio.picture(code)
            tiles += [render if crop is None else crop.image, render, *(to_pil(look.draw(code))[0] for look in looks)]
    return grid(
        [tile.resize((side, side), PIL.Image.Resampling.BICUBIC) for tile in tiles],
        col_labels=["photo", "projection", *(look.name[:NAME_LENGTH] for look in looks)],
        row_labels=[name[:NAME_LENGTH] for name in names],
    )


def _photos_in(texts: Sequence[str]) -> list[str]:
    """Replace folders by the photos in them."""
    from mien.images import PHOTO_SUFFIXES

    found: list[str] = []
    for text in texts:
        if not Path(text).is_dir():
            found.append(text)
            continue
        inside = sorted(str(path) for path in Path(text).iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
        if not inside:
            raise InputError(f"no photos in {text}", hint="give a folder with photos of people")
        found += inside
    return found


def _mixing(preset: str, layers: str | None, psi: float | None, *, num_ws: int, keep_colour: bool) -> Mixing:
    """Read what the options say of rows, counted in 18, and strength; the preset says the rest."""
    from mien.inversion.invert import find_edit
    from mien.latents import PUBLISHED_ROWS, scale_rows

    move = find_edit(preset)
    rows = move.rows(num_ws) if layers is None else scale_rows(parse_layers(layers, PUBLISHED_ROWS), num_ws)
    return Mixing(rows=rows, psi=move.psi if psi is None else psi, keep_colour=keep_colour)


def _other_generator(studio: Studio, by: str, *, force: bool) -> Generator:
    from torch import nn

    from mien.edits.style import check_decodes
    from mien.weights.load import load_generator

    other = load_generator(by)
    assert isinstance(other, nn.Module)
    other.to(studio.device)
    if not force:
        check_decodes(studio.G, other)
    return other


def _check_use(
    styles: list[str] | None, by: str | None, out: Path | None, outdir: Path | None, *, recipes: bool
) -> None:
    if not styles and by is None:
        raise InputError("no style", hint="name pictures, codes or seed:N after the photo, or a generator by --by")
    if out is None and outdir is None:
        raise InputError("nothing to write", hint="give --out TABLE.png, --outdir FOLDER, or both")
    if recipes and (outdir is None or by is not None):
        raise InputError("--recipes needs --outdir, and styles without --by", hint="a recipe names one generator")


@app.command()
@spread
def style(
    photo: Annotated[str, typer.Argument(help="A photo, a folder of them, a code or seed:N.", metavar="PHOTO")],
    styles: Annotated[
        list[str] | None, typer.Argument(help="Pictures (their largest face), codes or seed:N.", metavar="STYLE...")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option("--photo", help="Another person for the table, as PHOTO.", metavar="PHOTO")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="PNG of the table people x styles.")] = None,
    outdir: Annotated[
        Path | None, typer.Option("--outdir", help="Folder for each photo in each style: <photo>-<style>.png.")
    ] = None,
    recipes: Annotated[
        bool, typer.Option("--recipes", help="Write <style>.json into --outdir too: what was done, for mien replay.")
    ] = False,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Rows of the style, counted in 18 for any network: 9- is 9 to 17.")
    ] = None,
    psi: Annotated[
        float | None, typer.Option("--psi", min=0, max=1, help="Share of the face's own rows that is kept in them.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="Where --layers and --psi come from by default.")] = PRESET,
    keep_colour: Annotated[
        bool, typer.Option("--keep-colour/--take-colour", help="Give the face its own colours back, or the style's.")
    ] = False,
    by: Annotated[
        str | None, typer.Option("--by", help="Draw by this generator, fine-tuned from --network; styles are optional.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Draw by a generator that is not related, too.")] = False,
    face: FaceIdx = None,
    finding: Finding = FINDING,
    engine: Engine = ENGINE,
) -> None:
    """Give people the colour, light and texture of other pictures, or draw them by another generator.

    The defaults are those of the preset lab-style: rows 9 to 17 of 18, of which a tenth stays the face's own.

    Example: mien style portrait.jpg painting.jpg seed:5 seed:8 --layers 9- --psi 0.1 --out styles.png
    """
    _check_use(styles, by, out, outdir, recipes=recipes)
    sources = _photos_in([photo, *(more or [])])
    names, style_names = names_of(sources), names_of(styles or [])
    inputs = [Path(text) for text in (*sources, *(styles or []))]
    first = out or Path(outdir or "") / "style.png"
    finding.check(first, *sources, *(styles or []), engine=engine, face=face)
    if outdir is not None:
        check_outdir(outdir)
    if by is not None:
        check_network(by)
    studio = engine.studio()
    other = None if by is None else _other_generator(studio, by, force=force)
    mixing = _mixing(preset, layers, psi, num_ws=studio.G.num_ws, keep_colour=keep_colour)
    people: list[tuple[str, Scene]] = []
    failures = Failures()
    with Bars() as bars:
        subjects = finding.subjects(studio, bars)
        codes = [(name, subjects.code(text)) for name, text in zip(style_names, styles or [], strict=True)]
        looks = looks_of(studio, codes, other, mixing, force=force)
        if recipes and outdir is not None:
            _write_recipes(subjects, codes, mixing, outdir, face=face)
        for name, source in zip(names, sources, strict=True):
            with failures.keep(source):
                people.append((name, subjects.scene(source, face)))
        if outdir is not None:
            _write_photos(subjects, people, looks, outdir, inputs)
    if out is not None and people:
        _save(table(studio, people, looks), out)
    if not people:
        note("nobody could be drawn")
    failures.finish(len(sources))


def _write_recipes(
    subjects: Subjects, codes: list[tuple[str, Inversion]], mixing: Mixing, outdir: Path, *, face: int | None
) -> None:
    """Write <style>.json for each style."""
    from mien.app.operations import Style, person_of

    rows = tuple(mixing.rows)
    for name, code in codes:
        person = person_of(subjects.studio, code)
        done = Style(person=person, rows=rows, psi=mixing.psi, keep_colour=mixing.keep_colour)
        keep(subjects, [done], outdir / f"{name}.json", face=face)


def _write_photos(
    subjects: Subjects, people: list[tuple[str, Scene]], looks: Sequence[Look], outdir: Path, inputs: Sequence[Path]
) -> None:
    """Write <photo>-<style>.png for each person in each style."""
    for name, scene in people:
        for look in looks:
            path = outdir / f"{name}-{look.name.replace(' ', '-')}.png"
            check_out(path, inputs)
            _save(subjects.redraw(scene, look.draw), path)


def _save(image: Image, path: Path) -> None:
    from mien.images import save_png

    save_png(image, path)
    typer.echo(path)
