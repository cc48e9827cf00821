"""The attributes that our face network measures, and those that directions are shipped for."""

from __future__ import annotations

from torch import Tensor

from mien.edits.find import Attribute, Scorer, Scores
from mien.nets.features import EXPRESSIONS, FaceNet

__all__ = ["SHIPPED", "face_scorer"]

SHIPPED = (
    Attribute("smile", "of a full smile", keep=("yaw", "pitch", "age", "gender")),
    Attribute("age", "years", keep=("yaw", "pitch", "smile", "gender")),
    Attribute("yaw", "degrees, above 0 to the right of the picture", keep=("pitch", "roll", "smile", "age", "gender")),
)
"""The directions that come with a generator, with what each leaves as it is."""

MOUTH_OPEN = EXPRESSIONS.index("jawOpen")


def face_scorer(face_net: FaceNet) -> Scorer:
    """Return a scorer of smile 0..1, mouth 0..1, age in years, gender 0..1, yaw, pitch and roll in degrees."""

    def score(img: Tensor) -> Scores:
        read = face_net(img)
        yaw, pitch, roll = read.pose.unbind(dim=1)
        attributes = {
            "smile": read.smile,
            "mouth": read.expression[:, MOUTH_OPEN],
            "age": read.age,
            "gender": read.gender,
        }
        return Scores(attributes | {"yaw": yaw, "pitch": pitch, "roll": roll}, read.identity)

    return score
