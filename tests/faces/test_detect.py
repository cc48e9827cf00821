"""Faces of real and hostile pictures by the bundled detector; drawings and textures show none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch
from PIL.Image import Image

from mien.errors import InputError, NoFaceError, WeightsError
from mien.faces.detect import Face, detect, load_detector, one_face
from mien.images import to_pil
from mien.nets.detector import Detector
from mien.weights.load import find_weights

# The astronaut's eyes, nose and corners of the mouth, as YuNet sees them in a close view.
ASTRONAUT = np.array([[203.6, 103.4], [246.0, 103.7], [224.7, 126.6], [205.7, 143.7], [242.1, 143.9]])


@pytest.fixture(scope="module")
def net() -> Detector:
    return load_detector()


@pytest.fixture(scope="module")
def astronaut() -> Image:
    return PIL.Image.fromarray(skimage.data.astronaut())


def face_of(box: tuple[float, ...], score: float = 0.9) -> Face:
    return Face(np.array(box), np.zeros((5, 2)), score)


def eyes_agree(face: Face, points: np.ndarray, share: float) -> bool:
    """Whether the eyes are within `share` of the distance between them."""
    between = np.linalg.norm(points[1] - points[0])
    return bool(np.linalg.norm(face.landmarks[:2] - points[:2], axis=1).mean() < share * between)


def test_the_astronaut_has_one_face(net, astronaut):
    face = one_face(detect(net, astronaut))
    assert len(detect(net, astronaut)) == 1
    assert eyes_agree(face, ASTRONAUT, 0.08)
    assert np.abs(face.landmarks - ASTRONAUT).max() < 8
    assert (face.box[:2] < ASTRONAUT.min(0)).all()
    assert (face.box[2:] > ASTRONAUT.max(0)).all()
    assert face.score > 0.7


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket", "brick", "grass", "text", "moon", "hubble_deep_field"])
def test_pictures_without_a_face(net, name):
    folder = Path(skimage.data.__file__).parent
    path = next(folder.glob(f"{name}.*"))
    assert detect(net, PIL.Image.open(path).convert("RGB")) == []


def test_a_mirrored_photo_has_mirrored_faces(net, astronaut):
    face = one_face(detect(net, astronaut))
    mirrored = one_face(detect(net, astronaut.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)))
    points = mirrored.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (512, 0)
    assert eyes_agree(face, points, 0.06)


@pytest.mark.parametrize("degrees", [-30, 30])
def test_a_turned_photo_has_turned_faces(net, astronaut, degrees):
    turned = astronaut.rotate(degrees, PIL.Image.Resampling.BICUBIC)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points = (ASTRONAUT - 256) @ np.array([[c, -s], [s, c]]) + 256
    assert eyes_agree(one_face(detect(net, turned)), points, 0.1)


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 4.0])
def test_a_resized_photo_has_resized_faces(net, astronaut, scale):
    side = round(512 * scale)
    face = one_face(detect(net, astronaut.resize((side, side), PIL.Image.Resampling.LANCZOS)))
    assert eyes_agree(face, ASTRONAUT * scale, 0.1)


def test_a_grey_photo_has_the_same_face(net, astronaut):
    assert eyes_agree(one_face(detect(net, astronaut.convert("L").convert("RGB"))), ASTRONAUT, 0.08)


def test_a_face_that_fills_the_picture_is_found(net, astronaut):
    crop = astronaut.crop((170, 50, 280, 180)).resize((1100, 1300))
    assert eyes_agree(one_face(detect(net, crop)), (ASTRONAUT - (170, 50)) * 10, 0.1)


def test_a_face_cut_by_the_border_is_found(net, astronaut):
    cut = astronaut.crop((215, 0, 512, 512))  # the image-left eye is outside
    face = one_face(detect(net, cut))
    assert abs(face.landmarks[1] - (ASTRONAUT[1] - (215, 0))).max() < 8


def test_faces_are_sorted_by_area(net, astronaut):
    pair = PIL.Image.new("RGB", (900, 512), "grey")
    pair.paste(astronaut.resize((256, 256)), (0, 100))
    pair.paste(astronaut.crop((100, 0, 400, 300)), (500, 0))
    faces = detect(net, pair)
    assert [face.area_px for face in faces] == sorted((face.area_px for face in faces), reverse=True)
    assert len(faces) == 2
    assert faces[0].landmarks[0, 0] > 500 > faces[1].landmarks[0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2), (40, 1300)])
def test_tiny_pictures_and_strips_have_no_face(net, size):
    assert detect(net, PIL.Image.new("RGB", size, "orange")) == []


def test_the_same_photo_gives_the_same_numbers(net, astronaut):
    first, again = one_face(detect(net, astronaut)), one_face(detect(net, astronaut))
    assert first.score == again.score
    np.testing.assert_array_equal(first.landmarks, again.landmarks)


def test_a_lower_score_finds_no_less(net, astronaut):
    assert len(detect(net, astronaut, min_score=0.05)) >= 1
    assert all(face.score >= 0.9 for face in detect(net, astronaut, min_score=0.9))


def test_half_precision_finds_the_same_face(net, astronaut):
    half = load_detector().to(torch.bfloat16)
    assert eyes_agree(one_face(detect(half, astronaut)), one_face(detect(net, astronaut)).landmarks, 0.03)


def test_noise_shows_no_face(net):
    noise = torch.randn(1, 3, 300, 400, generator=torch.Generator().manual_seed(0))
    assert detect(net, to_pil(noise)[0]) == []


def test_one_face_is_the_largest():
    small, large = face_of((0, 0, 10, 10)), face_of((0, 0, 20, 30), score=0.6)
    assert one_face([small, large]) is large
    assert large.area_px == 600
    with pytest.raises(NoFaceError, match="no face found"):
        one_face([])


@pytest.mark.parametrize("score", [0.0, 1.0, -1.0])
def test_wrong_scores_are_refused(net, astronaut, score):
    with pytest.raises(InputError, match="min_score must be between 0 and 1"):
        detect(net, astronaut, min_score=score)


def test_a_photo_must_not_be_shrunk_to_nothing(net, astronaut):
    with pytest.raises(InputError, match="longest_px must be at least 32, got 8"):
        detect(net, astronaut, longest_px=8)


def test_another_file_is_no_detector(tmp_path):
    with pytest.raises(WeightsError, match="no weights at"):
        load_detector(tmp_path / "nothing.safetensors")


def test_the_weights_are_small():
    assert find_weights("detector").stat().st_size < 1_000_000


def test_every_large_face_of_the_photos(net, shared):
    """The table of the test photos says how many faces are there; the near ones are all found, and no other."""
    expected = {"face_recogni_two_people.jpg": 2, "dlib_2008_001322.jpg": 3, "human_background.jpg": 0}
    for file, num_faces in expected.items():
        faces = detect(net, PIL.Image.open(shared / "data" / "photos" / file).convert("RGB"))
        assert len([face for face in faces if face.area_px > 40**2]) == num_faces
