"""What MediaPipe says of a face is carried back to the photo, wherever and however turned the face is."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL.Image import Image

from mien.errors import MissingExtraError, NoFaceError, WeightsError
from mien.faces.align import align
from mien.faces.landmarks import FACE_LANDMARKER, FaceMesh, Landmarker, load_landmarker

EYES = ([33, 133, 159, 145, 158, 153, 160, 144], [362, 263, 386, 374, 385, 380, 387, 373])


@dataclass
class Face:
    landmarks: np.ndarray


# Five points of the woman in scikit-image's `astronaut`, px.
ASTRONAUT = Face(np.array([[200.6, 102.3], [247.6, 103.1], [220.9, 125.0], [199.1, 143.3], [240.2, 144.1]]))


@pytest.fixture(scope="module")
def astronaut() -> Image:
    skimage_data = pytest.importorskip("skimage.data")
    return PIL.Image.fromarray(skimage_data.astronaut())


@pytest.fixture(scope="module")
def landmarker(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landmarker]:
    pytest.importorskip("mediapipe", reason="needs mien[mediapipe]")
    cache = tmp_path_factory.mktemp("cache")
    shutil.copy(shared / "weights" / FACE_LANDMARKER.name, cache)
    with load_landmarker(cache=cache, offline=True) as loaded:
        yield loaded


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Turn clockwise, as seen in the picture, about the middle of a 512 px photo."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (points - 256) @ np.array([[c, s], [-s, c]]) + 256


def test_a_face_is_read_in_the_photos_pixels(landmarker: Landmarker, astronaut: Image) -> None:
    mesh = landmarker.read(astronaut, ASTRONAUT)
    assert mesh.landmarks.shape == (478, 2)
    assert len(mesh.blendshapes) == 52
    for eye, expected in zip(EYES, ASTRONAUT.landmarks, strict=False):
        np.testing.assert_allclose(mesh.landmarks[eye].mean(0), expected, atol=6)
    np.testing.assert_allclose(mesh.landmarks[[61, 291]], ASTRONAUT.landmarks[3:], atol=6)
    assert mesh.smile > 0.7
    assert abs(mesh.yaw_deg) < 10
    assert abs(mesh.roll_deg) < 10


@pytest.mark.parametrize("degrees", [-60, 90, 180])
def test_a_turned_photo_turns_the_points_and_the_roll(landmarker: Landmarker, astronaut: Image, degrees: int) -> None:
    upright = landmarker.read(astronaut, ASTRONAUT)
    photo = astronaut.rotate(-degrees, PIL.Image.Resampling.BICUBIC)
    mesh = landmarker.read(photo, Face(turned(ASTRONAUT.landmarks, degrees)))
    np.testing.assert_allclose(mesh.landmarks, turned(upright.landmarks, degrees), atol=1.5)
    assert mesh.yaw_deg == pytest.approx(upright.yaw_deg, abs=2)
    assert mesh.pitch_deg == pytest.approx(upright.pitch_deg, abs=2)
    difference = (mesh.roll_deg - upright.roll_deg + degrees + 180) % 360 - 180
    assert difference == pytest.approx(0, abs=2)


def test_a_mirrored_photo_mirrors_the_yaw(landmarker: Landmarker, shared: Path) -> None:
    """In this photo a woman looks to the right of the picture."""
    photo = PIL.Image.open(shared / "data" / "photos" / "human_stock-emotions-a-2.jpg").convert("RGB")
    points = np.array([[570.0, 447], [725, 449], [711, 559], [580, 658], [714, 659]])
    mirrored = (points * (-1, 1) + (photo.width, 0))[[1, 0, 2, 4, 3]]
    yaw = landmarker.read(photo, Face(points)).yaw_deg
    assert yaw > 20
    assert landmarker.read(photo.transpose(0), Face(mirrored)).yaw_deg == pytest.approx(-yaw, abs=3)


def test_the_mesh_aligns_as_five_points_do(landmarker: Landmarker, astronaut: Image) -> None:
    mesh = landmarker.read(astronaut, ASTRONAUT)
    by_mesh, by_points = align(astronaut, mesh, 64), align(astronaut, ASTRONAUT, 64)
    assert np.abs(by_mesh.quad - by_points.quad).max() < 10


def test_where_no_face_is_it_says_so(landmarker: Landmarker) -> None:
    with pytest.raises(NoFaceError, match="sees no face there") as info:
        landmarker.read(PIL.Image.new("RGB", (512, 512), "gray"), ASTRONAUT)
    assert info.value.hint


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingExtraError, match="MediaPipe cannot be loaded") as info:
        Landmarker(tmp_path / "model.task")
    assert "mien[mediapipe]" in info.value.hint


def test_a_foreign_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe", reason="needs mien[mediapipe]")
    (tmp_path / "model.task").write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="no model of a face landmarker"):
        Landmarker(tmp_path / "model.task")


def test_offline_without_the_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"face_landmarker.task is not in the cache"):
        load_landmarker(cache=tmp_path, offline=True)


def test_the_recorded_hash_is_that_of_the_file(shared: Path) -> None:
    data = (shared / "weights" / FACE_LANDMARKER.name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == FACE_LANDMARKER.sha256
    assert len(data) == FACE_LANDMARKER.size_bytes


def test_smile_is_the_mean_of_both_corners() -> None:
    shapes = {"mouthSmileLeft": 0.2, "mouthSmileRight": 0.6}
    mesh = FaceMesh(landmarks=np.zeros((478, 2)), blendshapes=shapes, yaw_deg=0, pitch_deg=0, roll_deg=0)
    assert mesh.smile == pytest.approx(0.4)
