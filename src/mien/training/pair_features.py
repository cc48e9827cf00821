"""What is measured of a pair of a person and a drawing, as one row of numbers for whoever judges or counts pairs.

Cheap signals come first: how sure the close look is that both sides are faces, whether their points agree, how real a
discriminator of faces finds the person, the truncation, how the readings of both sides differ, colour and contrast.
Then come the face network's features of both sides. A value that cannot be known (the truncation of a photo's pair) is
not a number.

Of the person, age, gender as it looks, and the skin's lightness are measured too: not to judge by, but to see who is
kept. The lightness is L* of CIELAB, the median over both cheeks.
"""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from skimage.color import rgb2lab
from torch import Tensor

from mien.errors import InputError, UnsupportedFileError
from mien.images import resize, to_tensor
from mien.nets.detector import Detector
from mien.nets.discriminator import Discriminator
from mien.nets.features import WINDOW, FaceNet, FaceReading
from mien.training.pair_filter import PairFilter, landmark_shift
from mien.training.provenance import net_digest

__all__ = ["GROUPS", "Measured", "PairMeter", "measure_pairs", "skin_lightness"]

GROUPS = ("age", "gender", "skin")
"""What is told of the person: years, 0 female to 1 male as it looks, L* of the cheeks."""

LOOKS = ("source_first_look", "source_look", "target_first_look", "target_look")
DIFFERENCES = ("yaw", "pitch", "roll", "expression", "age", "gender")
COLOURS = ("lightness", "contrast", "chroma", "detail")
FRAME = 96  # px, of FFHQ crops that WINDOW speaks of
CHEEKS = ((0.36, 0.60), (0.64, 0.60))  # centres in the crop's sides
CHEEK_HALF = 0.035
COLOUR_PX = 64


@dataclass(frozen=True, eq=False)
class Measured:
    """N pairs: their keys, `features` float32 [N, F] with one name each, and `groups` float32 [N, 3], see `GROUPS`."""

    keys: tuple[str, ...]
    names: tuple[str, ...]
    features: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """Return the features of these names, [N, len(names)].

        Raises:
            InputError: one was not measured.
        """
        place = {name: i for i, name in enumerate(self.names)}
        if missing := [name for name in names if name not in place]:
            hint = "fit the judge of quality again, by the networks that are here"
            raise InputError(f"the pairs were measured without {missing[0]}", hint=hint)
        return self.features[:, [place[name] for name in names]]

    def rows(self, rows: Sequence[int] | np.ndarray) -> Measured:
        """Return some of the pairs."""
        keys = tuple(self.keys[int(row)] for row in rows)
        return Measured(keys, self.names, self.features[rows], self.groups[rows])

    @staticmethod
    def joined(parts: Sequence[Measured]) -> Measured:
        """Return the pairs of several measurements by the same networks."""
        keys = tuple(key for part in parts for key in part.keys)
        features, groups = (np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "groups"))
        return Measured(keys, parts[0].names, features, groups)


def skin_lightness(img: Tensor) -> np.ndarray:
    """Return the median L* (0 to 100) of both cheeks of aligned faces img [N,3,H,H] in [-1,1], as [N]."""
    side = img.shape[-1]
    patches = []
    for x, y in CHEEKS:
        left, top, right, bottom = (
            round(side * at) for at in (x - CHEEK_HALF, y - CHEEK_HALF, x + CHEEK_HALF, y + CHEEK_HALF)
        )
        patches.append(_lab(img[:, :, top : max(bottom, top + 1), left : max(right, left + 1)])[..., 0])
    return np.median(np.concatenate([patch.reshape(len(img), -1) for patch in patches], 1), axis=1)


def _lab(img: Tensor) -> np.ndarray:
    """Return img [N,3,H,W] in [-1,1] as CIELAB [N,H,W,3]."""
    pixels = img.permute(0, 2, 3, 1).double().cpu().numpy()
    return np.asarray(rgb2lab((pixels / 2 + 0.5).clip(0, 1)))


def _colours(lab: np.ndarray) -> np.ndarray:
    """Return of faces' windows [N,H,W,3]: mean and deviation of L*, mean chroma, mean step between neighbours."""
    light = lab[..., 0]
    steps = [np.abs(np.diff(light, axis=axis)).mean((1, 2)) for axis in (1, 2)]
    chroma = np.hypot(lab[..., 1], lab[..., 2]).mean((1, 2))
    return np.stack([light.mean((1, 2)), light.std((1, 2)), chroma, np.mean(steps, axis=0)], 1)


def _window(img: Tensor) -> Tensor:
    top, left, side = (round(part / FRAME * COLOUR_PX) for part in WINDOW)
    return resize(img, COLOUR_PX)[:, :, top : top + side, left : left + side]


def _colour_features(source: Tensor, target: Tensor) -> np.ndarray:
    """Return colours of both faces, and how far they are apart: [N, 2 * 4 + 2]."""
    people, drawings = _lab(_window(source)), _lab(_window(target))
    apart = np.linalg.norm(people - drawings, axis=-1).mean((1, 2))
    x, y = (lab[..., 0].reshape(len(lab), -1) for lab in (people, drawings))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    alike = (x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)).clip(1e-6)
    return np.concatenate([_colours(people), _colours(drawings), apart[:, None], alike[:, None]], 1)


def _differences(a: FaceReading, b: FaceReading) -> Tensor:
    """Return how two readings differ, [N, len(DIFFERENCES)]."""
    expression = (a.expression - b.expression).abs().mean(1, keepdim=True)
    age, gender = (a.age - b.age).abs()[:, None], (a.gender - b.gender).abs()[:, None]
    return torch.cat([(a.pose - b.pose).abs(), expression, age, gender], 1)


def _means(read: FaceReading) -> Tensor:
    return torch.cat([m.mean((2, 3)) for m in read.maps[-2:]], 1)


class PairMeter:
    """Measures pairs.

    Args:
        detector: finds faces.
        face_net: reads them.
        D: a discriminator of faces without labels; None leaves its signal out.
    """

    def __init__(self, detector: Detector, face_net: FaceNet, D: Discriminator | None = None) -> None:
        self.filter, self.face_net = PairFilter(detector, face_net), face_net
        self.D = None if D is None else _one_by_one(D)
        nets = {"detector": detector, "face_net": face_net} | ({} if D is None else {"D": D})
        self.digests: Mapping[str, str] = {name: net_digest(net) for name, net in nets.items()}

    @property
    def device(self) -> torch.device:
        """Where its networks are."""
        return next(self.face_net.parameters()).device

    @property
    def names(self) -> tuple[str, ...]:
        """What is measured, column by column."""
        channels = self.face_net.init_kwargs["channels"]
        sides = ("source", "target")
        return (
            *LOOKS,
            *("landmark_shift", "identity"),
            *(["realness"] if self.D is not None else []),
            "psi",
            *(f"{name}_difference" for name in DIFFERENCES),
            *(f"{side}_{name}" for side in sides for name in COLOURS),
            *("colour_distance", "light_likeness"),
            *(f"{side}_feature_{i}" for side in sides for i in range(channels[-2] + channels[-1])),
        )

    @torch.no_grad()
    def __call__(self, keys: Sequence[str], source: Tensor, target: Tensor, psi: Sequence[float]) -> Measured:
        """Measure aligned pairs, both sides [N,3,H,H] in [-1,1], of these truncations (nan where there is none)."""
        source, target = source.to(self.device), target.to(self.device)
        people, drawings = self.face_net(source), self.face_net(target)
        looks = [self.filter.look(side) for side in (source, target)]
        blocks = [
            *(look.logits for look in looks),
            landmark_shift(*looks)[:, None],
            (people.identity * drawings.identity).sum(1, keepdim=True),
            *([self._realness(source)] if self.D is not None else []),
            torch.tensor(list(psi))[:, None],
            _differences(people, drawings),
            torch.from_numpy(_colour_features(source, target)),
            *(_means(read) for read in (people, drawings)),
        ]
        features = torch.cat([block.float().cpu() for block in blocks], 1).numpy()
        groups = np.stack([people.age.cpu().numpy(), people.gender.cpu().numpy(), skin_lightness(source)], 1)
        return Measured(tuple(keys), self.names, features, groups.astype(np.float32))

    def _realness(self, img: Tensor) -> Tensor:
        assert self.D is not None
        logits: Tensor = self.D(resize(img, self.D.img_resolution))
        return logits


def _one_by_one(D: Discriminator) -> Discriminator:
    """Return a discriminator whose verdict on a picture does not depend on the others of its batch."""
    if D.c_dim:
        raise InputError("the discriminator wants labels, which pairs lack", hint="give one of unlabelled faces")
    alone = copy.deepcopy(D).eval().requires_grad_(False)
    alone.b4.mbstd_group_size = 1
    return alone


# ---- From shards ----------------------------------------------------------------------------------------------------


def _side(sample: Mapping[str, Any], extension: str) -> Tensor:
    name = f"{sample['__key__']}.{extension}"
    try:
        with PIL.Image.open(io.BytesIO(sample[extension])) as image:
            return to_tensor(image)
    except KeyError as err:
        raise UnsupportedFileError(f"the pairs lack {name}", hint="make them again: mien pairs make") from err
    except (OSError, ValueError) as err:
        raise UnsupportedFileError(f"{name} is damaged: {err}", hint="make the pairs again") from err


def _psi(sample: Mapping[str, Any]) -> float:
    try:
        psi = json.loads(sample["json"]).get("psi")
        return math.nan if psi is None else float(psi)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        what = f"{sample['__key__']}.json is missing or damaged"
        raise UnsupportedFileError(what, hint="make the pairs again: mien pairs make") from err


def measure_pairs(
    meter: PairMeter, samples: Iterable[Mapping[str, Any]], *, batch_size: int = 16
) -> Iterator[Measured]:
    """Measure samples of shards (`read_pairs`) batch by batch; pictures are decoded while others are looked at.

    Raises:
        UnsupportedFileError: a picture or the facts of a pair are missing or damaged.
        InputError: pictures of several sizes.
    """

    def decoded(some: list[Mapping[str, Any]]) -> tuple[list[str], Tensor, Tensor, list[float]]:
        sides = [[_side(sample, extension) for sample in some] for extension in ("source.png", "target.png")]
        if len({img.shape for side in sides for img in side}) > 1 or sides[0][0].shape[2] != sides[0][0].shape[3]:
            raise InputError(f"the pairs after {some[0]['__key__']} are not squares of one size")
        source, target = (torch.cat(side) for side in sides)
        return [str(sample["__key__"]) for sample in some], source, target, [_psi(sample) for sample in some]

    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for some in _batches(samples, batch_size):
            ready, waiting = waiting, pool.submit(decoded, some)
            if ready is not None:
                yield meter(*ready.result())
        if waiting is not None:
            yield meter(*waiting.result())


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
