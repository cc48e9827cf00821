"""The people of a folder: which photos are of whom, which cannot be used and why, and who is seen best on which."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from mien.app.evaluate.inversion import Subject, find_subject
from mien.app.figures.page import slug
from mien.app.studio import Studio
from mien.app.terminal.items import Failures
from mien.errors import InputError
from mien.images import PHOTO_SUFFIXES, to_pil
from mien.inversion.code import picture_digest
from mien.nets.features import FaceNet

__all__ = ["Photo", "Someone", "group", "read_people"]

NUMBERED = re.compile(r"(.*?[^\W\d_])[\s_.-]*\(?\d+\)?")


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo of somebody: its file, the face in it, and how far that is turned, degrees."""

    path: Path
    subject: Subject
    digest: str
    yaw_deg: float
    pitch_deg: float

    @property
    def image(self) -> Image:
        """The aligned face, as it is shown."""
        return to_pil(self.subject.picture)[0]


@dataclass(frozen=True, eq=False)
class Someone:
    """A person: their photos, the most frontal first."""

    name: str
    photos: tuple[Photo, ...]

    @property
    def best(self) -> Photo:
        """The most frontal photo, by which the person is shown."""
        return self.photos[0]


def _photos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in PHOTO_SUFFIXES)


def _by_name(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Group files by their names without the number at the end; if that leaves one person, each file is one."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        match = NUMBERED.fullmatch(path.stem)
        groups.setdefault(match[1] if match else path.stem, []).append(path)
    return groups if len(groups) > 1 else {path.stem: [path] for path in paths}


def group(folder: Path, failures: Failures) -> dict[str, list[Path]]:
    """Return whose photos a folder holds: of each sub-folder one person, and of files beside them by their names.

    anna_1.jpg and anna_2.jpg are of one person. Twins of names are kept as failures: the first has the name.

    Raises:
        InputError: no folder, or no photo in it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}", hint="give a folder with photos of four to six people")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    candidates = [(path.name, path, _photos(path)) for path in inside]
    candidates += [(name, paths[0], paths) for name, paths in _by_name(_photos(folder)).items()]
    found: dict[str, list[Path]] = {}
    taken: dict[str, Path] = {}
    for name, place, paths in candidates:
        with failures.keep(place):
            if not paths:
                raise InputError(f"no photos in {place}", hint="put the person's photos into it, or remove it")
            key = slug(name).casefold()
            if key in taken:
                raise InputError(f"{place} and {taken[key]} are both people named {name}", hint="rename one of them")
            taken[key] = place
            found[name] = _once(paths, failures)
    if not found:
        raise InputError(f"no photos of people in {folder}", hint="give one sub-folder, or one file, for each person")
    return found


def _once(paths: Sequence[Path], failures: Failures) -> list[Path]:
    """Return a person's photos but for twins of names, anna/1.jpg and anna/1.png."""
    taken: dict[str, Path] = {}
    for path in paths:
        key = slug(path.stem).casefold()
        with failures.keep(path):
            if key in taken:
                raise InputError(f"{path} has the name of {taken[key].name}", hint="rename one of them")
            taken[key] = path
    return list(taken.values())


def read_people(
    studio: Studio,
    folder: Path,
    failures: Failures,
    *,
    aligned: bool = False,
    most: int | None = None,
    on_photo: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Someone]:
    """Read the people of a folder; what cannot be used is kept as a failure, and the rest goes on.

    Args:
        studio: finds and reads the faces; of every photo the largest counts.
        folder: see `group`.
        failures: takes what went wrong.
        aligned: the photos are FFHQ crops already.
        most: photos of each person, the most frontal ones; by default all.
        on_photo: hears of every photo.

    Raises:
        InputError: nobody is left.
    """
    groups = group(folder, failures)
    total, done = sum(map(len, groups.values())), 0
    people, seen = [], dict[str, Path]()
    for name, paths in groups.items():
        photos = []
        for path in paths:
            on_photo(done, total)
            done += 1
            with failures.keep(path):
                photos.append(_read(studio, path, seen, aligned=aligned))
        photos.sort(key=lambda photo: abs(photo.yaw_deg) + abs(photo.pitch_deg))
        if photos:
            people.append(Someone(name, tuple(photos[:most])))
    on_photo(total, total)
    if not people:
        failures.show(total)
        raise InputError(f"{folder} shows nobody's face", hint="give larger or more frontal photos")
    return people


def _read(studio: Studio, path: Path, seen: dict[str, Path], *, aligned: bool) -> Photo:
    subject = find_subject(studio, path, aligned=aligned)
    digest = picture_digest(subject.picture)
    if digest in seen:
        raise InputError(f"{path} is the same picture as {seen[digest]}", hint="remove one of them")
    seen[digest] = path
    yaw, pitch, _roll = [0.0] * 3 if studio.face_net is None else _pose(studio.face_net, subject.img.to(studio.device))
    return Photo(path, subject, digest, yaw, pitch)


@torch.no_grad()
def _pose(face_net: FaceNet, img: Tensor) -> list[float]:
    """Return yaw, pitch and roll of img [1, 3, H, H], degrees."""
    pose: list[float] = face_net(img).pose[0].tolist()
    return pose
