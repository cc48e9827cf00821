"""Drawn faces in photos: seams that do not show, neighbours that keep what is theirs, batches, strength, refusals."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from mien.edits.toonify import Artist, ToonConfig, draw_faces, draw_whole, drawn_where, nearer, paste_drawing, toonify
from mien.errors import InputError
from mien.faces.align import Crop, crop_quad

SIDE = 32


def noisy_photo(width: int = 200, height: int = 120) -> PIL.Image.Image:
    pixels = np.random.default_rng(0).integers(60, 200, [height, width, 3], dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def square(photo: PIL.Image.Image, x: float, y: float, side: float) -> Crop:
    quad = np.array([[x, y], [x, y + side], [x + side, y + side], [x + side, y]])
    return crop_quad(photo, quad, size_px=SIDE, source="photo")


def same(img: Tensor) -> Tensor:
    return img


def red(img: Tensor) -> Tensor:
    return torch.tensor([1.0, -1, -1])[:, None, None].expand_as(img).clone()


def pixels(photo: PIL.Image.Image) -> np.ndarray:
    return np.asarray(photo).astype(int)


def test_a_drawing_is_inside_and_the_photo_outside() -> None:
    photo = noisy_photo()
    made = toonify(photo, [square(photo, 20, 20, 80)], Artist("red", SIDE, red))
    before, after = pixels(photo), pixels(made)
    changed = (before != after).any(2)
    assert changed[30:90, 30:90].mean() > 0.99  # a pixel may have had its colour before
    assert not changed[:, 101:].any() and not changed[:20].any() and not changed[101:].any()
    centre = after[50:70, 50:70].reshape(-1, 3).mean(0)
    assert centre[0] > 245 and centre[1:].max() < 10
    assert np.array_equal(pixels(photo), before)  # the given photo is not touched


def test_light_and_colour_run_on_across_the_seam() -> None:
    photo = PIL.Image.new("RGB", (160, 160), (120, 120, 120))
    made = pixels(toonify(photo, [square(photo, 16, 16, 128)], Artist("red", SIDE, red)))
    step = np.abs(np.diff(made[80], axis=0)).max()
    assert step < 40  # of 135 in all
    profile = made[80, 16:80, 0]
    assert (np.diff(profile) >= -3).all()


def test_a_drawing_that_is_the_photo_changes_nothing_but_sharpness() -> None:
    ramp = np.linspace(40, 200, 160)[None, :, None] * np.ones([160, 1, 3])
    photo = PIL.Image.fromarray(ramp.astype(np.uint8))
    made = toonify(photo, [square(photo, 20.5, 11.25, 120)], Artist("same", SIDE, same))
    assert np.abs(pixels(made) - pixels(photo)).max() <= 3


def test_neighbours_keep_what_is_nearer_to_them() -> None:
    photo = noisy_photo()
    left, right = square(photo, 20, 20, 80), square(photo, 70, 20, 80)
    share = nearer(left, [right], SIDE)
    mirror = nearer(right, [left], SIDE)
    torch.testing.assert_close(share, mirror.flip(3))
    assert share[..., 0].min() == 1 and share[..., -1].max() == 0
    assert nearer(left, [], SIDE).min() == 1

    def by_place(img: Tensor) -> Tensor:
        drawn = red(img)
        drawn[1] = drawn[1].roll(1, dims=0)  # the second one is green
        return drawn

    made = pixels(toonify(photo, [left, right], Artist("two", SIDE, by_place)))
    assert made[60, 50:65, 0].min() > 230 and made[60, 105:120, 1].min() > 230
    one = pixels(toonify(photo, [right, left], Artist("two", SIDE, by_place)))
    assert one[60, 50:65, 1].min() > 230


def test_all_faces_go_in_one_pass_and_the_batch_size_changes_nothing() -> None:
    photo = noisy_photo(400)
    crops = [square(photo, 35.0 * i, 20, 30) for i in range(10)]
    calls: list[int] = []

    def half(img: Tensor) -> Tensor:
        calls.append(len(img))
        return img * 0.5

    whole = toonify(photo, crops, Artist("half", SIDE, half))
    assert calls == [10]
    parts = toonify(photo, crops, Artist("half", SIDE, half), ToonConfig(batch_size=3))
    assert calls == [10, 3, 3, 3, 1] and np.array_equal(pixels(parts), pixels(whole))


def test_strength_goes_from_the_photo_to_the_drawing() -> None:
    img, artist = torch.rand(2, 3, SIDE, SIDE) * 2 - 1, Artist("red", SIDE, red)
    assert torch.equal(draw_faces(artist, img, ToonConfig(strength=0)), img)
    torch.testing.assert_close(draw_faces(artist, img, ToonConfig(strength=1)), red(img))
    torch.testing.assert_close(draw_faces(artist, img, ToonConfig(strength=0.25)), 0.75 * img + 0.25 * red(img))
    loud = Artist("loud", SIDE, lambda img: 9 * img)
    assert draw_faces(loud, img, ToonConfig()).abs().max() == 1


def test_whole_pictures_are_drawn_at_a_side_that_networks_take() -> None:
    photo, seen = noisy_photo(203, 131), list[torch.Size]()

    def note(img: Tensor) -> Tensor:
        seen.append(img.shape)
        return red(img)

    artist = Artist("red", SIDE, note, is_free=True)
    made = draw_whole(artist, photo, ToonConfig(whole_px=100))
    assert made.size == photo.size and seen == [(1, 3, 64, 96)]
    assert (pixels(made)[..., 0] == 255).all()
    assert toonify(photo, [], artist, ToonConfig(is_whole=True)).size == photo.size
    assert np.array_equal(pixels(toonify(photo, [], artist)), pixels(photo))


def test_around_the_head_only_what_was_drawn_differently_is_replaced() -> None:
    img = torch.zeros(1, 3, 64, 64)
    where = drawn_where(img, img)
    assert where[0, 0, 32, 32] == 1 and where[0, 0, :, 0].max() == 0
    drawn = img.clone()
    drawn[..., :32] = 1.0
    where = drawn_where(img, drawn)
    assert where[0, 0, :, :24].min() > 0.99 and where[0, 0, :, 62:].max() < 1e-3


def test_a_face_at_the_photos_edge_is_drawn() -> None:
    photo = noisy_photo()
    made = toonify(photo, [square(photo, -30, -20, 90)], Artist("red", SIDE, red))
    assert made.size == photo.size and pixels(made)[20, 10, 0] > 220


def test_refusals() -> None:
    photo = noisy_photo()
    artist = Artist("red", SIDE, red)
    with pytest.raises(InputError, match="red draws faces of 32 px, these are 16 px"):
        draw_faces(artist, torch.zeros(1, 3, 16, 16), ToonConfig())
    with pytest.raises(InputError, match="red draws faces only"):
        toonify(photo, [], artist, ToonConfig(is_whole=True))
    with pytest.raises(InputError, match=r"strength is 1\.5"):
        ToonConfig(strength=1.5)
    with pytest.raises(InputError, match="batch_size is 0"):
        ToonConfig(batch_size=0)
    with pytest.raises(InputError, match="cut from a photo of 200x120"):
        paste_drawing(noisy_photo(100), square(photo, 20, 20, 80), torch.zeros(1, 3, SIDE, SIDE))
