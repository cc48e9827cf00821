"""How commands write the recipe of what they do, and the studio that one is done again in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mien.app.subjects import Subjects
from mien.app.terminal.items import check_out
from mien.errors import InputError

if TYPE_CHECKING:
    from mien.app.studio import Studio
    from mien.edits.recipe import Operation, Recipe

__all__ = ["check_recipe_out", "differences", "keep", "perform", "recipe_of", "studio_of"]

CPU = "cpu"


def check_recipe_out(recipe: Path | None, out: Path) -> None:
    """Refuse, before any work, a recipe that cannot be written.

    Raises:
        InputError: not a .json, or the result itself.
    """
    if recipe is not None:
        check_out(recipe, [out], suffix=".json")


def _engine(studio: Studio) -> dict[str, str]:
    """What besides weights and settings decides the last bits of a result."""
    import torch

    from mien import __version__

    threads = str(torch.get_num_threads()) if studio.device.type == CPU else ""
    return {"mien": __version__, "torch": torch.__version__, "device": studio.device.type, "threads": threads}


def recipe_of(subjects: Subjects, operations: Sequence[Operation], *, face: int | None = None) -> Recipe:
    """Write down what is done to the people of one call."""
    from mien.edits.recipe import Recipe, Settings

    studio = subjects.studio
    weights = studio.weights()
    digest = weights.pop(studio.network.name)
    return Recipe(
        network=studio.network.stem,
        digest=digest,
        operations=tuple(operations),
        method=subjects.method,
        steps=subjects.steps,
        settings=Settings(studio.settings(subjects.method, subjects.steps)),
        precision=studio.precision,
        seed=studio.seed,
        aligned=subjects.aligned,
        face=face,
        weights=weights,
        made_with=_engine(studio),
    )


def perform(
    subjects: Subjects,
    source: str,
    operations: Sequence[Operation],
    out: Path,
    *,
    face: int | None = None,
    recipe: Path | None = None,
) -> None:
    """Do operations to the faces of `source` one after the other, and write the result and, if wanted, its recipe."""
    from mien.app.operations import Remake, draw
    from mien.images import save_png

    if len(operations) == 1 and isinstance(operations[0], Remake):
        image = operations[0].remake(subjects, source, face)
    else:
        image = subjects.redraw(subjects.scene(source, face), lambda code: draw(subjects.studio, code, operations))
    save_png(image, out)
    if recipe is not None:
        keep(subjects, operations, recipe, face=face)


def keep(subjects: Subjects, operations: Sequence[Operation], path: Path, *, face: int | None = None) -> None:
    """Write the recipe of what is done to the people of one call."""
    from mien.app.operations import OPERATIONS
    from mien.edits.recipe import save_recipe

    save_recipe(recipe_of(subjects, operations, face=face), path, OPERATIONS)


def studio_of(recipe: Recipe, *, network: str | None = None, device: str = "auto") -> Studio:
    """Return the studio that a recipe was made in.

    A recipe's word for its generator is taken for bundled ones alone: nothing is opened or downloaded on its behalf.

    Raises:
        InputError: it is another generator, or a method that this version knows otherwise.
    """
    from mien.app.studio import Studio
    from mien.weights.load import bundled_names

    known = recipe.network in bundled_names()
    if network is None and not known:
        hint = "give that generator's file with --network"
        raise InputError(f"the recipe was made with {recipe.network}, which is not one of mien's own", hint=hint)
    studio = Studio(network or recipe.network, device=device, precision=recipe.precision, seed=recipe.seed)
    if studio.digest != recipe.digest:
        hint = f"give with --network the {recipe.network} whose sha256 begins with {recipe.digest[:12]}"
        raise InputError(f"the recipe was made with another generator than {studio.network.name}", hint=hint)
    if recipe.settings and recipe.settings != studio.settings(recipe.method, recipe.steps):
        made = recipe.made_with.get("mien", "another version")
        hint = f"replay it with mien {made}, or take out its settings to use those of today"
        raise InputError(f"the method {recipe.method} has other settings here than in the recipe", hint=hint)
    return studio


def differences(recipe: Recipe, studio: Studio) -> Iterator[str]:
    """Say what is other than where the recipe was made, so that results may differ in their last bits, or more."""
    here = studio.weights()
    for name, digest in recipe.weights.items():
        if here.get(name) != digest:
            yield f"{name} is another one here"
    engine = _engine(studio)
    for name, made in recipe.made_with.items():
        if name in engine and engine[name] != made:
            yield f"{name} was {made or 'another'}, here it is {engine[name] or 'another'}"
