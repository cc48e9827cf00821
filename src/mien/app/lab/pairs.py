"""The figures of a face lab between people: swaps, blends, morphs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

import numpy as np
import PIL.Image
import torch
from PIL.Image import Image
from torch import Tensor

from mien.app.evaluate.inversion import EVAL_PX
from mien.app.figures.page import chart, folded, rows, slug
from mien.app.lab.people import Someone
from mien.app.lab.work import Lab, Part, Picture, is_kept, record
from mien.app.sitters import METHOD, config_of, sharp_px, whole
from mien.edits import expression, facespace
from mien.edits.swap import SwapConfig
from mien.errors import MissingExtraError
from mien.images import open_photo, save_png, to_pil, to_tensor
from mien.inversion.code import PERSON_SUFFIX, Inversion, load_inversion
from mien.report import Step
from mien.video import save_mp4

__all__ = ["blends", "morphs", "swaps"]

STRIP = 7  # pictures of a morph from one person to the next
RAMP = 9  # weights of one person at which a blend is measured


def _alone(key: str, title: str) -> Part:
    text = "One person alone: this figure needs two."
    return Part(key, title, "", text, [], notes=[f"{title.lower()} left out: there is one person alone"])


def swaps(lab: Lab) -> Part:
    """Everybody's face on everybody's photo."""
    if len(lab.people) < 2:
        return _alone("swaps", "Swaps")
    config = config_of(lab.config.edit_steps, lab.studio.seed)
    codes = []
    for i, someone in enumerate(lab.people):
        lab.on_step(Step("editable codes", i, len(lab.people)))
        codes.append(_editable(lab, someone))
    total, done = len(codes) * (len(codes) - 1), 0
    lines: list[list[Picture | None]] = [[None]]
    lines[0] += [Picture(someone.best.image, someone.name, "photo", is_head=True) for someone in lab.people]
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    for i, source in enumerate(lab.people):
        line: list[Picture | None] = [Picture(source.best.image, source.name, "face", is_head=True)]
        numbers[source.name] = {}
        for k, target in enumerate(lab.people):
            if i == k:
                line.append(None)
                continue
            lab.on_step(Step("swaps", done, total))
            image, done = _swapped(lab, (source, codes[i]), (target, codes[k]), config), done + 1
            numbers[source.name][target.name] = found = _swap_numbers(lab, to_tensor(image), source, target)
            line.append(Picture(image, text=f"source {found['to_source']:.2f} · target {found['to_target']:.2f}"))
        lines.append(line)
    lab.on_step(Step("swaps", total, total))
    every = [found for found_of in numbers.values() for found in found_of.values()]
    middle = {key: median(found[key] for found in every) for key in every[0]}
    nearer = float(np.mean([found["to_source"] > found["to_target"] for found in every]))
    text = (
        "The face of each row on the photo of each column, whose pose, expression, light and surroundings stay. "
        f"Nearer to the face's person than to the photo's: {nearer:.0%} of {len(every)}."
    )
    head = ["", "", "identity to the face", "to the photo", "yaw, degrees off", "pitch, degrees off", "expression off"]
    body = [
        [source, target, *found.values()] for source, found_of in numbers.items() for target, found in found_of.items()
    ]
    shown = [rows(head[1:], [["median", *middle.values()]]), folded("Every pair's numbers", rows(head, body))]
    facts = {"median": middle, "nearer_to_source": nearer, "pairs": numbers, "config": asdict(config)}
    return Part("swaps", "Swaps", "Rows: whose face; columns: on whose photo", text, lines, facts, shown)


def _editable(lab: Lab, someone: Someone) -> Inversion:
    """Return a person's code as swaps want it, found now or kept from before."""
    out, img = lab.outdir / "swaps" / f"{slug(someone.name)}.png", someone.best.subject.img
    if not lab.studio.finished(out, img, method=METHOD, num_steps=lab.config.edit_steps):
        (code,) = lab.studio.invert(img, method=METHOD, num_steps=lab.config.edit_steps, on_step=lab.on_step)
        lab.studio.save(code, out)
    return load_inversion(out.with_suffix(PERSON_SUFFIX))


def _swapped(
    lab: Lab, source: tuple[Someone, Inversion], target: tuple[Someone, Inversion], config: SwapConfig
) -> Image:
    """Put one person on another's photo, or read what was made of them before."""
    pair = [source[0], target[0]]
    path = lab.outdir / "swaps" / f"{slug(pair[0].name)}-on-{slug(pair[1].name)}.png"
    inputs = lab.inputs(pair) | {"config": asdict(config), "method": METHOD, "steps": lab.config.edit_steps}
    if not is_kept(path, inputs):
        one, onto = (whole(lab.studio, someone.name, someone.best.image) for someone in pair)
        side = sharp_px(lab.studio, [one.crop, onto.crop])
        found = lab.studio.swap(
            [source[1]], one.at(side), [target[1]], onto.at(side), config=config, on_step=lab.on_step
        )
        save_png(lab.studio.paste_swap(onto.picture, onto.crop, found[0]), path)
        record(path, inputs)
    return open_photo(path)


@torch.no_grad()
def _swap_numbers(lab: Lab, picture: Tensor, source: Someone, target: Someone) -> dict[str, float]:
    """Compare a swap [1, 3, H, H] with the person whose face it is, and with the photo that it is on."""
    onto = target.best.subject.picture
    now, before = (expression.read(lab.face_net, img.to(lab.studio.device)) for img in (picture, onto))
    return {
        "to_source": lab.likeness(picture, source.best.subject.picture),
        "to_target": lab.likeness(picture, onto),
        "yaw_deg": float((now.pose - before.pose)[0, 0].abs()),
        "pitch_deg": float((now.pose - before.pose)[0, 1].abs()),
        "expression": float(expression.distance(now.expression, before.expression)),
    }


def _space(lab: Lab) -> facespace.FaceSpace:
    """Fit the space of the lab's people, or read it if it was fitted already."""
    studio, path = lab.studio, lab.outdir / "facespace.safetensors"
    config = facespace.FaceSpaceConfig(num_cycles=lab.config.cycles, seed=studio.seed)
    inputs = lab.inputs(lab.people) | {"config": asdict(config)}
    if is_kept(path, inputs):
        return facespace.load_facespace(path).to(studio.device)
    space = facespace.fit(
        studio.G,
        torch.stack([lab.code(someone).ws for someone in lab.people]).to(studio.device),
        torch.cat([someone.best.subject.img for someone in lab.people]).to(studio.device),
        names=[someone.name for someone in lab.people],
        config=config,
        face_model=studio.face_net,
        w_std=studio.stats.w_std,
        on_step=lab.on_step,
    )
    space.network = studio.digest
    facespace.save_facespace(space, path, config=config)
    record(path, inputs)
    return space


def _differences(lab: Lab) -> list[str]:
    """Say why the people will not blend well."""
    img = torch.cat([someone.best.subject.img for someone in lab.people])
    return facespace.differences(img, torch.tensor([someone.best.yaw_deg for someone in lab.people]))


def _weights(lab: Lab) -> list[list[float]]:
    """Return the weights of the blends: the even one, then some by the seed, evenly over the space."""
    people = len(lab.people)
    drawn = np.random.RandomState(lab.studio.seed).dirichlet([1.0] * people, lab.config.blends)
    return [[1 / people] * people, *drawn.round(2).tolist()]


def _ramp(lab: Lab, space: facespace.FaceSpace, person: int) -> list[tuple[float, float]]:
    """Raise one person's weight from none, the others even, and return how alike the blend is to them."""
    others = len(lab.people) - 1
    own = lab.who(_render(lab, space.blend(_one_hot(person, others + 1))))
    found = []
    for weight in np.linspace(0, 1, RAMP).tolist():
        weights = [(1 - weight) / others] * (others + 1)
        weights[person] = weight
        found.append((weight, float((lab.who(_render(lab, space.blend(weights))) * own).sum())))
    return found


def _one_hot(person: int, people: int) -> list[float]:
    return [float(i == person) for i in range(people)]


def _render(lab: Lab, ws: Tensor) -> Tensor:
    return lab.studio.render(Inversion(ws=ws))


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's coefficient of pairs without ties."""
    x, y = (np.argsort(np.argsort(values)) for values in zip(*pairs, strict=True))
    return float(np.corrcoef(x, y)[0, 1])


def blends(lab: Lab) -> Part:
    """Everybody at the corners of a space of weights, and blends inside it."""
    if len(lab.people) < 2:
        return _alone("blends", "Blends")
    space, names = _space(lab), [someone.name for someone in lab.people]
    tiles: list[Picture | None] = []
    numbers = []
    for weights in _weights(lab):
        img = _render(lab, space.blend(weights))
        likeness = {s.name: lab.likeness(img, s.best.subject.picture) for s in lab.people}
        shares = dict(zip(names, weights, strict=True))
        tiles.append(Picture(to_pil(img)[0], "the mean" if not tiles else "", shares=shares))
        numbers.append({"weights": shares, "identity": likeness})
    corners: list[Picture | None] = [
        Picture(lab.studio.picture(Inversion(ws=space.blend(_one_hot(i, len(names))))), name, is_head=True)
        for i, name in enumerate(names)
    ]
    columns = max(len(corners), 4)
    lines = [corners, *(tiles[i : i + columns] for i in range(0, len(tiles), columns))]
    ramps = {name: _ramp(lab, space, i) for i, name in enumerate(names)}
    monotone = {name: _rank_correlation(ramp) for name, ramp in ramps.items()}
    curves = chart("Likeness to a person over their weight, the others even", ramps)
    facts = {"blends": numbers, "ramps": ramps, "rank_correlation": monotone, "cycles": lab.config.cycles}
    text = (
        "The people are the corners of a space of weights, and every point in it is a face. Rank correlation of weight "
        f"and likeness: {min(monotone.values()):.2f} at least."
    )
    return Part(
        "blends",
        "Blends",
        "The people, and blends of them by weights",
        text,
        lines,
        facts,
        [curves],
        notes=_differences(lab),
    )


def morphs(lab: Lab) -> Part:
    """From each person to the next and back to the first, as strips and as a video."""
    people = len(lab.people)
    if people < 2:
        return _alone("morphs", "Morphs")
    space = _space(lab)
    ways = [(i, (i + 1) % people) for i in range(people if people > 2 else 1)]
    lines = []
    for a, b in ways:
        codes = space.morph(a, b, STRIP)
        titles = [lab.people[a].name, *[""] * (STRIP - 2), lab.people[b].name]
        lines.append(
            [
                Picture(lab.studio.picture(Inversion(ws=ws)), title, is_head=bool(title))
                for ws, title in zip(codes, titles, strict=True)
            ]
        )
    loop = ways if people > 2 else [(0, 1), (1, 0)]
    frames = itertools.chain.from_iterable(space.morph(a, b, lab.config.frames)[:-1] for a, b in loop)
    video, text = lab.outdir / "figures" / "morph.mp4", "From each person to the next, slowly at both ends."
    try:
        save_mp4((_for_video(lab.studio.picture(Inversion(ws=ws))) for ws in frames), video, fps=24)
    except MissingExtraError as err:
        return Part(
            "morphs",
            "Morphs",
            "From each person to the next",
            text,
            lines,
            notes=[f"no video: {err.message} ({err.hint})"],
        )
    return Part("morphs", "Morphs", "From each person to the next", text, lines, videos=[video])


def _for_video(image: Image) -> Image:
    side = max(EVAL_PX, image.width)
    return image.resize((side, side), PIL.Image.Resampling.BICUBIC)
