"""Who is who from picture to picture of a clip, and where: faces followed, gaps bridged, quads steadied.

A face goes on as the person whose place and looks it has. Place is the overlap with where the person should be by now,
looks the cosine of the face network's identity with the mean of what was seen; together they keep two people apart who
cross, and find somebody again who was away or after a cut.

Source: overlap from frame to frame: Bewley et al. 2016 (SORT), Sec. 3, arXiv:1602.00763; looks beside it: Wojke et al.
2017, Sec. 2.2, arXiv:1703.07402; smoothed quads: Tzaban et al. 2022, Sec. 3.1, arXiv:2201.08361.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.faces.align import ffhq_quad
from mien.faces.detect import Face

__all__ = ["FollowConfig", "Follower", "Track", "jitter_px", "smooth_quads", "spans"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """Settings of following; cosines are those of the face network that is shipped."""

    max_gap: int = 8  # pictures without the face that are bridged
    min_overlap: float = 0.1  # IoU with the expected box from which a face may be the person
    stranger: float = 0.1  # cosine below which it is somebody else, wherever it is
    reunion: float = 0.4  # cosine from which it is the person, wherever it is
    hidden: float = 0.25  # cosine below which a bridged picture does not show the person after all
    min_sightings: int = 3  # people seen less often are mistakes of the detector
    centre_sigma: float = 1.0  # pictures, of the Gaussian over the quads' middles
    axes_sigma: float = 3.0  # and over their size and roll

    def __post_init__(self) -> None:
        if self.max_gap < 0 or self.min_sightings < 1:
            raise InputError("max_gap must be at least 0 and min_sightings at least 1")
        if not (0 <= self.centre_sigma < 1000 and 0 <= self.axes_sigma < 1000):
            raise InputError("the sigmas of smoothing must be from 0 to below 1000 pictures")


@dataclass(eq=False)
class Track:
    """One person of a clip: number of a picture => the face in it."""

    faces: dict[int, Face] = field(default_factory=dict)
    looks: Array | None = None  # sum of unit vectors [D]

    @property
    def last(self) -> int:
        return next(reversed(self.faces))

    @property
    def area_px(self) -> float:
        """Sum of the boxes over all pictures: who is largest for longest comes first."""
        return sum(face.area_px for face in self.faces.values())

    def expected_box(self, frame: int) -> Array:
        """Where the box should be by now, [4] px: it goes on as between the last two sightings."""
        box = self.faces[self.last].box
        if len(self.faces) < 2:
            return box
        now, before = list(self.faces)[:-3:-1]
        step = _middle(box) - _middle(self.faces[before].box)
        return box + np.tile(step / (now - before), 2) * min(frame - now, 2)

    def likeness(self, identity: Array | None) -> float | None:
        """Cosine of a unit vector [D] with the mean of what was seen; None where looks are not known."""
        if identity is None or self.looks is None:
            return None
        return float(identity @ self.looks / max(float(np.linalg.norm(self.looks)), 1e-12))

    def add(self, frame: int, face: Face, identity: Array | None) -> None:
        """Note a sighting."""
        self.faces[frame] = face
        if identity is not None:
            self.looks = identity if self.looks is None else self.looks + identity


def _middle(box: Array) -> Array:
    return (box[:2] + box[2:]) / 2


def _overlap(a: Array, b: Array) -> float:
    """Intersection over union of two boxes [4]."""
    inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(inner / max((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner, 1e-12))


class Follower:
    """Takes the faces of one picture after another and says who they are."""

    def __init__(self, config: FollowConfig | None = None) -> None:
        self.config = config or FollowConfig()
        self.all: list[Track] = []

    def _score(self, track: Track, frame: int, face: Face, identity: Array | None) -> float:
        """How surely a face is that person: overlap plus cosine; minus infinity where it is not."""
        likeness = track.likeness(identity)
        overlap = (
            _overlap(track.expected_box(frame), face.box) if frame - track.last <= self.config.max_gap + 1 else 0.0
        )
        if likeness is not None and likeness < self.config.stranger:
            return -np.inf
        is_there = overlap >= self.config.min_overlap
        is_alike = likeness is not None and likeness >= self.config.reunion
        return overlap + (likeness or 0.0) if is_there or is_alike else -np.inf

    def see(self, frame: int, faces: Sequence[Face], identities: Sequence[Array] | None = None) -> None:
        """Note the faces of a picture.

        Args:
            frame: its number, above that of the picture before.
            faces: all of its faces.
            identities: a unit vector [D] for each face, of a network that tells people apart.
        """
        looks: Sequence[Array | None] = [None] * len(faces) if identities is None else identities
        scores = np.array([[self._score(t, frame, f, i) for f, i in zip(faces, looks, strict=True)] for t in self.all])
        free = set(range(len(faces)))
        for _ in range(min(len(self.all), len(faces))):
            t, f = map(int, np.unravel_index(scores.argmax(), scores.shape))
            if scores[t, f] == -np.inf:
                break
            self.all[t].add(frame, faces[f], looks[f])
            scores[t], scores[:, f] = -np.inf, -np.inf
            free.remove(f)
        for f in sorted(free):
            new = Track()
            new.add(frame, faces[f], looks[f])
            self.all.append(new)

    def tracks(self) -> list[Track]:
        """Return the people who were seen often enough, the one who is largest for longest first."""
        kept = [track for track in self.all if len(track.faces) >= self.config.min_sightings]
        return sorted(kept, key=lambda track: -track.area_px)


def spans(frames: Iterable[int], max_gap: int) -> list[list[int]]:
    """Split numbers of pictures where more than `max_gap` are missing between them.

    >>> spans([0, 1, 4, 9], max_gap=2)
    [[0, 1, 4], [9]]
    """
    parts: list[list[int]] = []
    for frame in sorted(frames):
        if parts and frame - parts[-1][-1] <= max_gap + 1:
            parts[-1].append(frame)
        else:
            parts.append([frame])
    return parts


def steady(values: Array, sigma: float) -> Array:
    """Smooth values [T, ...] over time by a Gaussian; beyond both ends they go on as a mirror through a point.

    So none are lost, and whatever moves evenly stays as it is.
    """
    if sigma == 0 or len(values) == 1:
        return values
    reach = math.ceil(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(values.reshape(len(values), -1), ((reach, reach), (0, 0)), "reflect", reflect_type="odd")
    smooth = np.stack([np.convolve(column, taps / taps.sum(), "valid") for column in padded.T], axis=1)
    return smooth.reshape(values.shape)


def bridged(frames: Sequence[int], values: Array) -> Array:
    """Fill the gaps between `frames` along straight lines: values [K, ...] to [last - first + 1, ...]."""
    flat = values.reshape(len(values), -1)
    time = np.arange(frames[0], frames[-1] + 1)
    filled = np.stack([np.interp(time, frames, column) for column in flat.T], axis=1)
    return filled.reshape(-1, *values.shape[1:])


def smooth_quads(track: Track, config: FollowConfig) -> dict[int, Array]:
    """Return the steadied FFHQ quads [4, 2] px of a person, short gaps bridged: number of a picture => quad."""
    quads: dict[int, Array] = {}
    for part in spans(track.faces, config.max_gap):
        raw = bridged(part, np.stack([ffhq_quad(track.faces[frame].landmarks) for frame in part]))
        centre = raw.mean(1, keepdims=True)
        smooth = steady(centre, config.centre_sigma) + steady(raw - centre, config.axes_sigma)
        quads |= dict(zip(range(part[0], part[-1] + 1), smooth, strict=True))
    return quads


def jitter_px(quads: dict[int, Array]) -> float:
    """Mean acceleration of the corners, px a picture squared: 0 for whoever stands or moves evenly."""
    bends = [
        np.linalg.norm(quads[frame - 1] - 2 * quad + quads[frame + 1], axis=1).mean()
        for frame, quad in quads.items()
        if frame - 1 in quads and frame + 1 in quads
    ]
    return float(np.mean(bends)) if bends else 0.0
