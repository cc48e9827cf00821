"""The stages of a face lab: each makes one figure of the people, with every number that belongs to it.

What takes long is kept beside the report as codes, so that the same call goes on after it was stopped.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import PIL.Image
import torch
from PIL.Image import Image
from torch import Tensor

from mien.app.evaluate import EVAL_PX, Subject, measure
from mien.app.lab_people import Photo, Someone
from mien.app.page import chart, folded, rows, slug
from mien.app.studio import Studio
from mien.atomic import write_text
from mien.edits import expression, facespace
from mien.errors import InputError, MissingExtraError
from mien.images import resize, to_pil
from mien.inversion.code import CODE_SUFFIXES, PERSON_SUFFIX, Inversion, load_inversion, picture_digest, save_inversion
from mien.inversion.invert import EDIT_PRESETS
from mien.judges import Identity, Perceptual
from mien.report import Sink, Step, ignore
from mien.video import save_mp4

__all__ = ["STAGES", "Lab", "LabConfig", "Part", "Picture"]

STRIP = 7  # pictures of a morph from one person to the next
RAMP = 9  # weights of one person at which a blend is measured
SIDES = "On the left the renders; on the right the same change in the photo itself, whose detail stays."
NUMBERS = {"mse": "MSE", "psnr": "PSNR, dB", "perceptual": "perceptual", "ms_ssim": "MS-SSIM", "identity": "identity"}


@dataclass(frozen=True, kw_only=True)
class LabConfig:
    """Settings of a lab."""

    method: str = "optimize"  # of inversion
    steps: int | None = None  # of its last refinement, by default its own
    cycles: int = 2  # of the space of faces, 0 = straight blends
    edit_steps: int | None = None  # of expressions and swaps, by default their own
    blends: int = 6  # chosen by the seed, beside the even one
    frames: int = 24  # of the morph from one person to the next

    def __post_init__(self) -> None:
        if self.blends < 0 or self.frames < 2:
            raise InputError(f"blends from 0 and frames from 2, got {self.blends} and {self.frames}")


@dataclass(frozen=True, eq=False)
class Picture:
    """A tile of a figure: what it is and says, and bars of shares where it is a blend."""

    image: Image
    title: str = ""
    text: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
    is_head: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """A figure of the lab: rows of tiles, None where one stays empty, and its numbers; `html` stands below."""

    key: str
    title: str
    text: str
    lines: Sequence[Sequence[Picture | None]]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    html: Sequence[str] = ()
    videos: Sequence[Path] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Lab:
    """The people of a lab, and what its stages work with.

    Attributes:
        studio: networks.
        people: at least one.
        styles: name => code that gives its last rows.
        outdir: where codes are kept.
        looks: who says how different pictures look.
        identity: who says whose face it is.
        config: settings.
        on_step: hears of every step.
    """

    studio: Studio
    people: Sequence[Someone]
    styles: Mapping[str, Inversion]
    outdir: Path
    looks: Perceptual
    identity: Identity
    config: LabConfig = LabConfig()
    on_step: Sink = ignore

    def place(self, someone: Someone) -> Path:
        """Return where a person's projections are kept."""
        return self.outdir / "projections" / slug(someone.name)

    def project(self, someone: Someone, photo: Photo) -> dict[str, float]:
        """Invert a photo unless that is done, and return how near the projection is."""
        subject = Subject(slug(photo.path.stem), photo.subject.picture, photo.subject.img)
        judges = {"looks": self.looks, "identity": self.identity}
        found = measure(self.studio, subject, self.config.method, self.config.steps, self.place(someone), judges)
        return {key: found[key] for key in NUMBERS}

    def code(self, someone: Someone, photo: Photo | None = None) -> Inversion:
        """Return the code of a photo that was projected, by default the person's best."""
        path = self.place(someone) / slug((photo or someone.best).path.stem)
        kept = (path.with_name(path.name + suffix) for suffix in reversed(CODE_SUFFIXES))
        return load_inversion(next(file for file in kept if file.is_file()))

    @torch.no_grad()
    def who(self, img: Tensor) -> Tensor:
        """Describe faces [N, 3, H, H] by unit vectors [N, D]."""
        return self.identity.describe(resize(img.cpu(), EVAL_PX).clamp(-1, 1))

    def likeness(self, img: Tensor, other: Tensor) -> float:
        """Return the cosine of two faces' identities."""
        return float((self.who(img) * self.who(other)).sum())

    def in_photo(self, someone: Someone, img: Tensor) -> Image:
        """Change the person's best crop as img [1, 3, H, H] differs from its projection: the photo's detail stays."""
        before = self.studio.render(self.code(someone))
        change = resize((img - before).cpu(), EVAL_PX)
        return to_pil((someone.best.subject.picture + change).clamp(-1, 1))[0]


def _original(photo: Photo) -> Image:
    return to_pil(photo.subject.picture)[0]


def originals(lab: Lab) -> Part:
    """Everybody's photos, the most frontal first, by which they are shown."""
    lines = [
        [
            Picture(_original(photo), someone.name if i == 0 else "", f"yaw {photo.yaw_deg:+.0f}°", is_head=i == 0)
            for i, photo in enumerate(someone.photos)
        ]
        for someone in lab.people
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
    return Part("people", "People", text, lines, numbers, notes=notes)


def projections(lab: Lab) -> Part:
    """Everybody found again in the generator, beside the originals."""
    total, done = sum(len(someone.photos) for someone in lab.people), 0
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    lines: list[list[Picture | None]] = []
    for someone in lab.people:
        line: list[Picture | None] = []
        numbers[someone.name] = {}
        for photo in someone.photos:
            lab.on_step(Step("projections", done, total))
            found = lab.project(someone, photo)
            numbers[someone.name][photo.path.name], done = found, done + 1
            name = someone.name if photo is someone.best else ""
            line += [
                Picture(_original(photo), name, is_head=photo is someone.best),
                Picture(
                    lab.studio.picture(lab.code(someone, photo)),
                    text=f"identity {found['identity']:.2f} · {found['psnr']:.1f} dB",
                ),
            ]
        lines.append(line)
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
    return Part("projections", "Projections", text, lines, {"median": middle, "people": numbers}, shown)


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
    return Part("styles", "Styles", text, lines, facts)


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
    line += [Picture(to_pil(img)[0], text=f"identity kept {kept[name]:.2f}") for name, img in found.items()]
    line.append(Picture(_original(someone.best), someone.name, "photo", is_head=True))
    line += [Picture(lab.in_photo(someone, img), text=name) for name, img in found.items()]
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
            inputs = _inputs(lab, [someone]) | {"shown": shown, "config": asdict(config)}
            make = partial(lab.studio.express, code, shown, config=config, on_step=lab.on_step)
            changed = _kept_code(path, inputs, make)
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
    return Part("expressions", "Expressions", text, lines, facts, [shown_below])


def _missing(lab: Lab, code: Inversion, shown: Mapping[str, float]) -> float:
    """Return how far a face is from an expression: the mean difference of the blendshapes that make it."""
    seen = lab.studio.expression(lab.studio.render(code))
    return float(
        np.mean([abs(seen[name] - value) for key, value in shown.items() for name in seen if name.startswith(key)])
    )


def _kept_code(path: Path, inputs: Mapping[str, Any], make: Callable[[], Inversion]) -> Inversion:
    """Return a code, made now, or kept from before when it was made of the same."""
    if _is_kept(path, inputs):
        return load_inversion(path)
    code = make()
    save_inversion(code, path)
    write_text(json.dumps(inputs), path.with_suffix(".json"))
    return code


def _inputs(lab: Lab, people: Sequence[Someone]) -> dict[str, Any]:
    """What everything that is made of some people depends on."""
    codes = [picture_digest(lab.code(someone).ws) for someone in people]
    pictures = [someone.best.digest for someone in people]
    return {"weights": lab.studio.weights(), "seed": lab.studio.seed, "codes": codes, "pictures": pictures}


def _is_kept(path: Path, inputs: Mapping[str, Any]) -> bool:
    """Say whether a file was made of these inputs, so that it need not be made again."""
    record = path.with_suffix(".json")
    if not path.is_file() or not record.is_file():
        return False
    return bool(json.loads(record.read_text(encoding="utf-8")) == json.loads(json.dumps(inputs)))


def _space(lab: Lab) -> facespace.FaceSpace:
    """Fit the space of the lab's people, or read it if it was fitted already."""
    studio, path = lab.studio, lab.outdir / "facespace.safetensors"
    config = facespace.FaceSpaceConfig(num_cycles=lab.config.cycles, seed=studio.seed)
    inputs = _inputs(lab, lab.people) | {"config": asdict(config)}
    if _is_kept(path, inputs):
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
    write_text(json.dumps(inputs), path.with_suffix(".json"))
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
    return Part("blends", "Blends", text, lines, facts, [curves], notes=_differences(lab))


def _alone(key: str, title: str) -> Part:
    text = "One person alone: this figure needs two."
    return Part(key, title, text, [], notes=[f"{title.lower()} left out: there is one person alone"])


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
        return Part("morphs", "Morphs", text, lines, notes=[f"no video: {err.message} ({err.hint})"])
    return Part("morphs", "Morphs", text, lines, videos=[video])


def _for_video(image: Image) -> Image:
    side = max(EVAL_PX, image.width)
    return image.resize((side, side), PIL.Image.Resampling.BICUBIC)


STAGES: Sequence[Callable[[Lab], Part]] = (originals, projections, styles, expressions, blends, morphs)
"""In the order of the report; each needs those before it."""
