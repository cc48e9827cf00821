"""Who draws, by name or file: a network from picture to picture, or a generator that was adapted from the faces'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mien.edits.toonify import Artist
from mien.errors import InputError
from mien.images import resize
from mien.latents import truncate
from mien.nets.precision import exact_float32
from mien.weights.engine import FACTS, ExportedTranslator
from mien.weights.load import bundled_names, find_weights, load_generator, load_net, read_recipe

if TYPE_CHECKING:
    from mien.app.capabilities.codes import Codes

__all__ = ["adapted_styles", "bundled_styles", "drawing_code", "drawing_side", "draws_anything", "find_artist"]

DRAWING_NETS = ("student.Student", "pix2pix.UnetGenerator", "animegan.AnimeGenerator")
SIDE_PX = {"pix2pix.UnetGenerator": 256, "animegan.AnimeGenerator": 512}  # of faces, where a file does not say
FREE_NETS = ("student.Student", "animegan.AnimeGenerator")
PSI = 0.8  # of the codes that an adapted generator draws
HINT = "give a network of `mien train cartoon` or `pix2pix`, or a generator of `mien train adapt`"


def drawing_side(path: Path) -> int | None:
    """Return the side, px, of the aligned faces that a network takes which draws pictures; None for any other file.

    Raises:
        InputError: it does not go from colour pictures to colour pictures.
    """
    recipe = read_recipe(path)
    if recipe.net not in DRAWING_NETS:
        return None
    if not recipe.kwargs.get("in_channels", 3) == recipe.kwargs.get("out_channels", 3) == 3:
        raise InputError(f"{path.name} does not go from colour pictures to colour pictures", hint=HINT)
    known = recipe.kwargs.get("img_resolution") or recipe.provenance.get("img_resolution")
    return int(known or SIDE_PX[recipe.net])


def bundled_styles() -> list[str]:
    """Return the names of the networks in the package that draw faces, those that draw at once first.

    Doors offer these and no files.
    """
    at_once = [name for name in bundled_names() if read_recipe(find_weights(name)).net in DRAWING_NETS]
    return at_once + [name for name in bundled_names() if _base_of(name)]


def adapted_styles() -> list[str]:
    """Return those of them that blend with the generator of the package that they were adapted from."""

    def side(name: str) -> int:
        return int(read_recipe(find_weights(name)).kwargs["img_resolution"])

    return [name for name in bundled_names() if (base := _base_of(name)) and side(name) == side(base)]


def _base_of(name: str) -> str:
    """The generator that a bundled one was adapted from; empty for any other network."""
    recipe = read_recipe(find_weights(name))
    return recipe.base.name if recipe.base and recipe.net.endswith(".Generator") else ""


def draws_anything(style: str) -> bool:
    """Say whether a style draws whole pictures, too."""
    return read_recipe(find_weights(style)).net in FREE_NETS


def find_artist(studio: Codes, style: str) -> Artist:
    """Return who draws in a style.

    Args:
        studio: computes; its generator is whose codes an adapted generator takes.
        style: a name that `find_weights` knows, a file, or a translator's folder of `mien export`.

    Raises:
        WeightsError: nothing there, or nothing that can be read.
        InputError: a network that draws no faces, or a generator that is not related to the studio's.
    """
    if (Path(style) / FACTS).is_file():
        exported = ExportedTranslator(Path(style))
        return Artist(exported.name, exported.img_resolution, exported)
    path = find_weights(style)
    kind = read_recipe(path).net
    if kind.endswith(".Generator"):
        return _by_codes(studio, path)
    side = drawing_side(path)
    if side is None:
        raise InputError(f"{path.name} holds a {kind.rpartition('.')[2]}, which does not draw faces", hint=HINT)
    net = load_net(path).to(studio.device)

    def draw(img: Tensor) -> Tensor:
        with torch.no_grad(), exact_float32(studio.dtype == torch.float32):
            drawn: Tensor = net(img.to(studio.device))
        return drawn

    return Artist(path.stem, side, draw, is_free=kind in FREE_NETS)


def drawing_code(studio: Codes, img: Tensor) -> Tensor:
    """Return the code [N, 1, w_dim] in W by which an adapted generator draws faces img [N, 3, S, S] of any side."""
    seen = resize(img, studio.G.img_resolution).clamp(-1, 1)
    return truncate(studio.encode(seen).mean(dim=1, keepdim=True), studio.G.w_avg, PSI)


def _by_codes(studio: Codes, path: Path) -> Artist:
    """Draw by what the studio's encoder sees in a face and another generator makes of it.

    An adapted generator has learnt to draw the mapping's codes alone, so it gets the code in W, nearer the mean.
    """
    from mien.edits.style import check_decodes

    other = load_generator(path)
    assert isinstance(other, torch.nn.Module)
    other.to(studio.device)
    check_decodes(studio.G, other)

    def draw(img: Tensor) -> Tensor:
        with torch.no_grad(), exact_float32(studio.dtype == torch.float32):
            return other.synthesis(drawing_code(studio, img).expand(-1, other.num_ws, -1), noise_mode="const")

    return Artist(path.stem, other.img_resolution, draw)
