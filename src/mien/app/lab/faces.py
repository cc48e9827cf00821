"""The figures of a face lab that show each person alone: photos, projections, styles, expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median

import numpy as np
from torch import Tensor

from mien.app.evaluate.inversion import EVAL_PX
from mien.app.figures.page import folded, rows, slug
from mien.app.lab.people import Someone
from mien.app.lab.work import NUMBERS, Lab, Part, Picture, kept_code
from mien.edits import expression
from mien.images import to_pil
from mien.inversion.code import PERSON_SUFFIX, Inversion
from mien.inversion.invert import EDIT_PRESETS
from mien.report import Step

__all__ = ["expressions", "originals", "projections", "styles"]

COLUMNS = 6  # of photos, or of photos with their projections
SIDES = "On the left the renders; on the right the same change in the photo itself, whose detail stays."


def _lines(pictures: Sequence[Picture]) -> list[Sequence[Picture]]:
    """Lay pictures out row by row."""
    return [pictures[i : i + COLUMNS] for i in range(0, len(pictures), COLUMNS)]


def originals(lab: Lab) -> Part:
    """Everybody's photos, the most frontal first, by which they are shown."""
    shown = [
        Picture(photo.image, someone.name if i == 0 else "", f"yaw {photo.yaw_deg:+.0f}°", is_head=i == 0)
        for someone in lab.people
        for i, photo in enumerate(someone.photos)
    ]
    numbers = {
        someone.name: {
            photo.path.name: {"picture": photo.digest, "yaw_deg": photo.yaw_deg, "pitch_deg": photo.pitch_deg}
            for photo in someone.photos
        }
        for someone in lab.people
    }
    notes = [f"{s.name} has one photo: no other pose to compare with" for s in lab.people if len(s.photos) == 1]
    text = "Aligned as FFHQ is, the most frontal photo of each person first: it stands for them in what follows."
    return Part("people", "People", "Aligned photos, the most frontal first", text, _lines(shown), numbers, notes=notes)


def projections(lab: Lab) -> Part:
    """Everybody found again in the generator, beside the originals."""
    total, done = sum(len(someone.photos) for someone in lab.people), 0
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    pictures: list[Picture] = []
    for someone in lab.people:
        numbers[someone.name] = {}
        for photo in someone.photos:
            lab.on_step(Step("projections", done, total))
            found = lab.project(someone, photo)
            numbers[someone.name][photo.path.name], done = found, done + 1
            name = someone.name if photo is someone.best else ""
            pictures += [
                Picture(photo.image, name, is_head=photo is someone.best),
                Picture(
                    lab.studio.picture(lab.code(someone, photo)),
                    text=f"identity {found['identity']:.2f} · {found['psnr']:.1f} dB",
                ),
            ]
    lab.on_step(Step("projections", total, total))
    every = [found for photos in numbers.values() for found in photos.values()]
    middle = {key: median(found[key] for found in every) for key in NUMBERS}
    body = [
        [name, file, *(found[key] for key in NUMBERS)]
        for name, photos in numbers.items()
        for file, found in photos.items()
    ]
    shown = [rows(["", *NUMBERS.values()], [["median", *middle.values()]])]
    shown.append(folded("Every photo's numbers", rows(["", "", *NUMBERS.values()], body)))
    text = (
        f"Each photo and what the generator makes of its code, found by {lab.config.method}. Compared at {EVAL_PX} px: "
        f"looks by {_name(lab.looks.name)}, identity by {_name(lab.identity.name)}."
    )
    return Part(
        "projections",
        "Projections",
        "Each photo, and what the generator makes of its code",
        text,
        _lines(pictures),
        {"median": middle, "people": numbers},
        shown,
    )


def _name(judge: str) -> str:
    return "mien's own face network" if judge == "shipped" else judge


def styles(lab: Lab) -> Part:
    """Everybody in the colour, light and texture of other pictures."""
    move = EDIT_PRESETS["lab-style"]
    chosen = move.rows(lab.studio.G.num_ws)
    lines: list[list[Picture | None]] = [
        [None, *(Picture(lab.studio.picture(code), name, is_head=True) for name, code in lab.styles.items())]
    ]
    numbers: dict[str, dict[str, float]] = {}
    for someone in lab.people:
        code = lab.code(someone)
        found = {
            name: lab.studio.render(lab.studio.restyle(code, style, chosen, move.psi))
            for name, style in lab.styles.items()
        }
        line, numbers[someone.name] = _changed(lab, someone, found)
        lines.append(line)
    text = (
        f"Rows {chosen[0]} to {chosen[-1]} of each code from the style above, {move.psi:.0%} of their own kept: pose "
        f"and shape stay the person's, colour, light and texture become the style's. {SIDES}"
    )
    facts = {"rows": chosen, "psi": move.psi, "identity_kept": numbers}
    return Part("styles", "Styles", "Renders, and the same change in the photo", text, lines, facts)


def _changed(lab: Lab, someone: Someone, found: Mapping[str, Tensor]) -> tuple[list[Picture | None], dict[str, float]]:
    """Show a person's projection and its changes, then the photo and the same changes in it; how much identity is kept.

    Args:
        lab: that they are in.
        someone: the person.
        found: name => img [1, 3, H, H] of the changed code.
    """
    before = lab.studio.render(lab.code(someone))
    kept = {name: lab.likeness(img, before) for name, img in found.items()}
    line: list[Picture | None] = [Picture(to_pil(before)[0], someone.name, "projection", is_head=True)]
    line += [Picture(to_pil(img)[0], name, f"identity kept {kept[name]:.2f}") for name, img in found.items()]
    line.append(Picture(someone.best.image, someone.name, "photo", is_head=True))
    line += [Picture(lab.in_photo(someone, img), name) for name, img in found.items()]
    return line, kept


def expressions(lab: Lab) -> Part:
    """Everybody with the expressions of three emotions."""
    config = expression.ExpressionConfig()
    if lab.config.edit_steps is not None:
        config = replace(config, num_steps=lab.config.edit_steps)
    total = len(lab.people) * len(expression.EMOTIONS)
    lines: list[list[Picture | None]] = []
    kept: dict[str, dict[str, float]] = {}
    missing: dict[str, dict[str, dict[str, float]]] = {}
    for i, someone in enumerate(lab.people):
        code, found = lab.code(someone), dict[str, Tensor]()
        missing[someone.name] = {}
        for j, (emotion, shown) in enumerate(expression.EMOTIONS.items()):
            lab.on_step(Step("expressions", i * len(expression.EMOTIONS) + j, total))
            path = lab.outdir / "expressions" / slug(someone.name) / f"{emotion}{PERSON_SUFFIX}"
            inputs = lab.inputs([someone]) | {"shown": shown, "config": asdict(config)}
            make = partial(lab.studio.express, code, shown, config=config, on_step=lab.on_step)
            changed = kept_code(path, inputs, make)
            found[emotion] = lab.studio.render(changed)
            missing[someone.name][emotion] = {
                "before": _missing(lab, code, shown),
                "after": _missing(lab, changed, shown),
            }
        line, kept[someone.name] = _changed(lab, someone, found)
        lines.append(line)
    lab.on_step(Step("expressions", total, total))
    text = f"The blendshapes of each emotion, reached by a move of the code; identity and pose are held. {SIDES}"
    body = [
        [name, emotion, value["before"], value["after"], kept[name][emotion]]
        for name, emotions in missing.items()
        for emotion, value in emotions.items()
    ]
    head = ["", "", "missing before", "after", "identity kept"]
    shown_below = folded("How far each expression was, and is", rows(head, body))
    facts = {"missing": missing, "identity_kept": kept, "config": asdict(config)}
    return Part(
        "expressions", "Expressions", "Renders, and the same change in the photo", text, lines, facts, [shown_below]
    )


def _missing(lab: Lab, code: Inversion, shown: Mapping[str, float]) -> float:
    """Return how far a face is from an expression: the mean difference of the blendshapes that make it."""
    seen = lab.studio.expression(lab.studio.render(code))
    return float(
        np.mean([abs(seen[name] - value) for key, value in shown.items() for name in seen if name.startswith(key)])
    )
