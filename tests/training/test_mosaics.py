"""Labels go where the picture goes, and a batch is a function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mien.errors import InputError
from mien.training.data import PictureSet
from mien.training.mosaics import FACE, SCENE_PX, UNSURE, Mosaics, load_scenes

FIVE = np.array([[95.0, 100], [155, 95], [125, 130], [100, 160], [150, 155]])
BOX = np.array([70.0, 60, 180, 190])
COLUMNS = "x0 y0 x1 y1 leye_x leye_y reye_x reye_y nose_x nose_y lmouth_x lmouth_y rmouth_x rmouth_y".split()


def marked_photos(num: int = 4) -> PictureSet:
    """Black photos with a white disc at each of the five points of one face."""
    y, x = np.mgrid[0:SCENE_PX, 0:SCENE_PX] + 0.5
    near = np.min([np.hypot(x - px, y - py) for px, py in FIVE], axis=0)
    pixels = np.broadcast_to((near < 6) * 255, (num, 3, SCENE_PX, SCENE_PX)).astype(np.uint8)
    return PictureSet(torch.from_numpy(pixels.copy()), [f"person_{i}_0001.png" for i in range(num)], {}, "")


def table_of(pictures: PictureSet, score: float = 0.9) -> dict[str, np.ndarray]:
    values = np.concatenate([BOX, FIVE.ravel()])
    table = {name: np.full(len(pictures), value) for name, value in zip(COLUMNS, values, strict=True)}
    return table | {"file": np.array(pictures.names), "score": np.full(len(pictures), score)}


def mosaics(*, score: float = 0.9, negative_share: float = 0.0, seed: int = 0) -> Mosaics:
    pictures = marked_photos()
    return Mosaics(
        pictures,
        table_of(pictures, score),
        batch_size=6,
        size_px=128,
        negative_share=negative_share,
        num_drawings=2,
        seed=seed,
    )


def test_points_go_with_their_pixels():
    """Through zoom, turn, flip and crop, each labelled point in view is brighter than the middle of the cheek."""
    made = mosaics()
    contrasts = []
    for step in range(6):
        img, targets = made.batch(step)
        for n, m in (targets.kinds == FACE).nonzero().tolist():
            x0, y0, x1, y1 = targets.boxes[n, m].tolist()
            if min(x0, y0) < 1 or max(x1, y1) > 127 or x1 - x0 < 30:
                continue  # in full view and large enough for discs
            grey = img[n].mean(0)
            spots = targets.points[n, m].long()
            dark = targets.points[n, m, [0, 3]].mean(0).long()
            contrasts.append((grey[spots[:, 1], spots[:, 0]] - grey[dark[1], dark[0]]).tolist())
    assert len(contrasts) >= 10
    assert np.mean(np.array(contrasts) > 0.3) > 0.8  # a neighbour may cover one


def test_left_stays_left_when_flipped():
    _, targets = mosaics().batch(0)
    points = targets.points[targets.kinds == FACE]
    across = points[:, 1] - points[:, 0]
    down = points[:, 3] - points[:, 0]
    assert (across[:, 0] > 0).all()
    assert (across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0] > 0).all()  # never mirrored


def test_a_batch_is_a_function_of_seed_and_step():
    img, targets = mosaics().batch(3)
    again, labels = mosaics().batch(3)
    torch.testing.assert_close(again, img, atol=0, rtol=0)
    torch.testing.assert_close(labels.boxes, targets.boxes, atol=0, rtol=0)
    assert not torch.equal(mosaics().batch(4)[0], img)
    assert not torch.equal(mosaics(seed=1).batch(3)[0], img)


def test_pictures_are_in_range():
    img, _ = mosaics(negative_share=0.5).batch(0)
    assert img.shape == (6, 3, 128, 128)
    assert img.min() >= -1
    assert img.max() <= 1


def test_doubtful_labels_are_not_asked():
    _, targets = mosaics(score=0.65).batch(0)
    assert set(targets.kinds.unique().tolist()) <= {0, UNSURE}


def test_tiles_without_a_face_have_no_label():
    _, targets = mosaics(negative_share=1.0).batch(0)
    assert targets.kinds.numel() == 0 or targets.kinds.max() == 0


def test_photos_without_a_labelled_face_are_refused():
    pictures = marked_photos()
    table = table_of(pictures) | {"file": np.full(4, "nobody.png")}
    with pytest.raises(InputError, match="no photo of the set has a labelled face"):
        Mosaics(pictures, table, batch_size=1, size_px=64, num_drawings=1)


def test_scenes_need_their_table(tmp_path):
    (tmp_path / "scenes.zip").write_bytes(b"")
    with pytest.raises(InputError, match="no table of faces"):
        load_scenes(tmp_path / "scenes.zip")
