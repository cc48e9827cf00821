"""The attributes that our face network measures, and those that directions are shipped for.

Expressions are means of blendshapes: surprise raises the brows, widens the eyes and drops the jaw; of anger the network
sees the lowered brows, since nothing else of it is in its data.

Source: action units of emotions: Ekman and Friesen 1978, Facial Action Coding System.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from mien.edits.find import Attribute
from mien.edits.probe import Scorer, Scores
from mien.errors import InputError
from mien.nets.features import EXPRESSIONS, FaceNet, FaceReading

__all__ = ["EXPRESSION_PARTS", "KEPT", "SHIPPED", "attribute", "attributes_of", "face_scorer"]


def _sides(name: str) -> tuple[str, str]:
    return f"{name}Left", f"{name}Right"


EXPRESSION_PARTS: Mapping[str, tuple[str, ...]] = {
    "smile": _sides("mouthSmile"),
    "mouth_open": ("jawOpen",),
    "eyes_closed": _sides("eyeBlink"),
    "surprise": ("browInnerUp", *_sides("browOuterUp"), *_sides("eyeWide"), "jawOpen"),
    "anger": _sides("browDown"),
}
"""Expression => the blendshapes whose mean it is."""

POSE = ("yaw", "pitch", "roll")
FACE = ("yaw", "pitch", "age", "gender")
KEPT = ("smile", *FACE)
"""What a direction of something else is to leave as it is."""

SHIPPED = (
    Attribute("smile", "of a full smile", keep=FACE),
    Attribute("anger", "of lowered brows", keep=KEPT),
    Attribute("surprise", "of full surprise", keep=KEPT),
    Attribute("mouth_open", "of an open jaw", keep=KEPT),
    Attribute("eyes_closed", "of closed eyes", keep=KEPT),
    Attribute("age", "years", keep=("yaw", "pitch", "smile", "gender")),
    Attribute("gender", "of the way from female to male looks", keep=("yaw", "pitch", "smile", "age")),
    Attribute("yaw", "degrees, above 0 to the right of the picture", keep=("pitch", "roll", "smile", "age", "gender")),
    Attribute("pitch", "degrees, above 0 down", keep=("yaw", "roll", "smile", "age", "gender")),
)
"""The directions that come with a generator, with what each leaves as it is."""


def attribute(name: str, keep: Sequence[str] | None = None) -> Attribute:
    """Return what is shipped under a name, or any other attribute that the face network measures.

    Args:
        name: of the attribute.
        keep: what its direction leaves as it is, by default what the shipped one does.

    Raises:
        InputError: the face network does not measure it, or what to keep.
    """
    shipped = {a.name: a for a in SHIPPED}
    known = {*EXPRESSION_PARTS, "age", "gender", *POSE}
    for one in (name, *(keep or ())):
        if one not in known:
            raise InputError(f"nothing measures {one!r}", hint=f"known: {', '.join(sorted(known))}")
    found = shipped.get(name, Attribute(name, f"of {name}", tuple(other for other in FACE if other != name)))
    return found if keep is None else replace(found, keep=tuple(other for other in keep if other != name))


def attributes_of(read: FaceReading) -> dict[str, Tensor]:
    """Name each attribute [N]: expressions and gender in 0..1, age in years, yaw, pitch and roll in degrees."""
    expressions = {
        name: read.expression[:, [EXPRESSIONS.index(part) for part in parts]].mean(dim=1)
        for name, parts in EXPRESSION_PARTS.items()
    }
    return (
        expressions | {"age": read.age, "gender": read.gender} | dict(zip(POSE, read.pose.unbind(dim=1), strict=True))
    )


def face_scorer(face_net: FaceNet) -> Scorer:
    """Return a scorer of `attributes_of` faces and of their identity; gradients go through it."""

    def score(img: Tensor) -> Scores:
        read = face_net(img)
        return Scores(attributes_of(read), read.identity)

    return score
