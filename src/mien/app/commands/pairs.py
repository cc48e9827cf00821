"""`mien pairs`: a person and their drawing, of the same code, by the thousand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.commands import pair_quality
from mien.app.options import Class, Device, Outdir, Psi
from mien.app.settings import DEFAULT_NETWORK, DETECTOR, FACE_NET
from mien.app.terminal.items import check_network, check_outdir
from mien.app.terminal.screen import Bars, note, show_error
from mien.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from mien.app.studio import Studio

__all__ = ["app"]

PHOTOS_A_SHARD = 64

app = typer.Typer(no_args_is_help=True, help="Pairs of people and drawings, for `mien train pix2pix`.")
app.add_typer(pair_quality.app)


def _photos_in(folder: Path) -> list[Path]:
    from mien.images import PHOTO_SUFFIXES

    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    if not found:
        raise InputError(f"no photos in {folder}", hint="give a folder of pictures")
    return found


def _digest(paths: Sequence[Path], method: str) -> str:
    found = hashlib.sha256(method.encode())
    for path in paths:
        found.update(f"{path.name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _inverted(studio: Studio, paths: Sequence[Path], method: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the name, picture and code of every face; photos that cannot be read are shown and left out."""
    from mien.images import open_photo

    for path in paths:
        try:
            crops = studio.align(open_photo(path), source=path.name)
        except InputError as err:
            show_error(err)
            continue
        for i, crop in enumerate(crops):
            yield f"{path.stem}_{i}", crop.img, studio.invert(crop.img, method=method)[0].ws


@app.command()
def make(
    target: Annotated[str, typer.Option("--target", help="Generator of the drawings, fine-tuned from the source.")],
    outdir: Outdir,
    source: Annotated[str, typer.Option("--source", help="Generator of the people.")] = DEFAULT_NETWORK,
    num: Annotated[int, typer.Option("--num", min=1, help="People that are drawn; filters keep fewer.")] = 20_000,
    psi: Psi = 0.7,
    high_psi_share: Annotated[
        float, typer.Option("--high-psi-share", min=0, max=1, help="Share with more variety: glasses, beards, age.")
    ] = 0.0,
    high_psi: Annotated[float, typer.Option("--high-psi", help="Truncation of that share.")] = 1.0,
    filters: Annotated[bool, typer.Option("--filter/--no-filter", help="Keep only pairs with one face, twice.")] = True,
    photos: Annotated[Path | None, typer.Option("--photos", help="Folder of real photos, inverted and drawn.")] = None,
    method: Annotated[str, typer.Option("--method", help="Of inverting those.")] = "optimize",
    val_share: Annotated[float, typer.Option("--val-share", min=0, max=1, help="For validation.")] = 0.05,
    test_share: Annotated[float, typer.Option("--test-share", min=0, max=1, help="For the last examination.")] = 0.05,
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="People whose pairs make one shard of a split.")] = 1000,
    batch: Annotated[int, typer.Option("--batch", min=1, help="People drawn at once.")] = 16,
    min_cosine: Annotated[
        float, typer.Option("--min-cosine", min=-1, max=1, help="Refuse generators less related than that.")
    ] = 0.2,
    class_idx: Class = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first person; the next has the next one.")] = 0,
) -> None:
    """Draw the same people with two related generators, into shards that the library webdataset reads.

    The same command goes on after it was stopped; a larger --num adds to what is there.

    Example: mien pairs make --source faces-64 --target toon.safetensors --num 20000 --outdir pairs
    """
    from mien.app.studio import Studio
    from mien.faces.detect import load_detector
    from mien.inversion.invert import find_method
    from mien.nets.features import FaceNet
    from mien.nets.precision import exact_float32
    from mien.training.pair_filter import FilterConfig, PairFilter
    from mien.training.pairs import PairsConfig, make_pairs
    from mien.weights.load import load_net

    check_outdir(outdir)
    find_method(method)
    paths = [] if photos is None else _photos_in(photos)
    config = PairsConfig(
        num=num,
        psi=psi,
        high_psi=high_psi,
        high_psi_share=high_psi_share,
        seed=seed,
        class_idx=class_idx,
        val_share=val_share,
        test_share=test_share,
        chunk=chunk,
        batch_size=batch,
        photos=_digest(paths, method) if paths else "",
        filter=FilterConfig() if filters else None,
    )
    for network in (source, target):
        check_network(network)
    studios = [Studio(network, device=device) for network in (source, target)]
    people, drawings = (studio.G for studio in studios)
    judge = None
    if config.filter is not None:
        place = studios[0].device
        judge = PairFilter(load_detector(DETECTOR).to(place), load_net(FACE_NET, FaceNet).to(place), config.filter)
    shards: dict[str, Iterable[tuple[str, Tensor, Tensor]]] = {
        f"photos-{first // PHOTOS_A_SHARD:06d}": _inverted(studios[0], paths[first : first + PHOTOS_A_SHARD], method)
        for first in range(0, len(paths), PHOTOS_A_SHARD)
    }
    digests = {"source": studios[0].digest, "target": studios[1].digest}
    with Bars() as bars, exact_float32():
        report = make_pairs(
            people,
            drawings,
            outdir,
            config,
            digests=digests,
            judge=judge,
            photos=shards,
            min_cosine=min_cosine,
            on_step=bars,
        )
    note(f"kept {report['kept']}, rejected {report['rejected'] or 'none'}")
    typer.echo(outdir / "report.json")
