"""The quad is FFHQ's, the crop is upright, and what goes back into the photo is what was meant."""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from PIL.Image import Image

from mien.errors import InputError, UnsupportedFileError
from mien.faces.align import (
    align,
    crop_quad,
    ffhq_quad,
    find_photo,
    is_in_photo,
    load_crop,
    mask,
    paste_back,
    paste_change,
    save_crop,
)
from mien.images import to_tensor
from mien.training.data import read_table

# A frontal face: the eyes at (80, 100) and (140, 100), the mouth at y = 160.
FIVE = np.array([[80.0, 100], [140, 100], [110, 130], [90, 160], [130, 160]])


@dataclass
class Face:
    landmarks: np.ndarray


def points_68(five: np.ndarray) -> np.ndarray:
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = five[0], five[1]
    points[48], points[54] = five[3], five[4]
    return points


def turned(points: np.ndarray, degrees: float, about: tuple[float, float]) -> np.ndarray:
    """Turn clockwise as seen in a picture (y points down)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (points - about) @ np.array([[c, s], [-s, c]]) + about


@pytest.fixture
def photo() -> Image:
    """A drawing with edges, fine grain and colours, 300 x 260 px."""
    rng = np.random.default_rng(1)
    coarse = np.kron(rng.integers(30, 220, (13, 15, 3)), np.ones((20, 20, 1)))
    grain = rng.integers(-25, 25, coarse.shape)
    return PIL.Image.fromarray(np.clip(coarse + grain, 0, 255).astype(np.uint8))


def smooth_photo(width: int = 300, height: int = 260) -> Image:
    y, x = np.mgrid[0:height, 0:width] + 0.5
    planes = [127 + 120 * np.sin(x / 29 + y / 41), 127 + 120 * np.cos(x / 37), 127 + 120 * np.sin(y / 31)]
    return PIL.Image.fromarray(np.stack(planes, 2).round().astype(np.uint8))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    mse = np.square(a.astype(float) - b.astype(float)).mean()
    return 99.0 if mse == 0 else 10 * math.log10(255**2 / mse)


def at(image: Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# ----- the quad


def test_quad_is_the_recipe_of_ffhq() -> None:
    """Eyes 60 px apart, mouth 60 px below: half the side is max(2.0 * 60, 1.8 * 60) along the mean direction."""
    quad = ffhq_quad(points_68(FIVE))
    centre = np.array([110.0, 106])  # a tenth of the way from the eyes to the mouth
    np.testing.assert_allclose(quad, centre + np.array([[-120, -120], [-120, 120], [120, 120], [120, -120]]))
    eyes_height = (100 - quad[0, 1]) / 240
    assert eyes_height == pytest.approx(0.475)
    long_face = FIVE.copy()
    long_face[3:, 1] = 200
    assert ffhq_quad(points_68(long_face))[3, 0] - ffhq_quad(points_68(long_face))[0, 0] == pytest.approx(2 * 1.8 * 100)


@pytest.mark.parametrize("degrees", [-170, -35, 10, 90])
def test_quad_turns_moves_and_grows_with_the_face(degrees: float) -> None:
    for points in (points_68(FIVE), FIVE):
        quad = ffhq_quad(points)
        moved = turned(points, degrees, (50, 60)) * 1.7 + (300, -20)
        np.testing.assert_allclose(ffhq_quad(moved), turned(quad, degrees, (50, 60)) * 1.7 + (300, -20))


def test_five_points_get_the_measured_correction() -> None:
    whole, five = ffhq_quad(points_68(FIVE)), ffhq_quad(FIVE)
    assert (five[3] - five[0])[0] / (whole[3] - whole[0])[0] == pytest.approx(0.97)
    np.testing.assert_allclose(five.mean(0) - whole.mean(0), [0, 0.0025 * 0.97 * 240])


def test_mesh_points_follow_the_recipe() -> None:
    mesh = np.zeros((478, 2))
    mesh[[33, 133, 159, 145, 158, 153, 160, 144]] = FIVE[0]
    mesh[[362, 263, 386, 374, 385, 380, 387, 373]] = FIVE[1]
    mesh[61], mesh[291] = FIVE[3], FIVE[4]
    np.testing.assert_allclose(ffhq_quad(mesh), ffhq_quad(points_68(FIVE)))


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((6, 2)), r"must be \[5, 2\], \[68, 2\] or \[478, 2\], got \[6, 2\]"),
        (np.full((5, 2), 7.0), "make no face"),
        (np.full((5, 2), np.nan), "make no face"),
    ],
)
def test_landmarks_that_make_no_face_are_said(landmarks: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ffhq_quad(landmarks)


# ----- the crop


def test_matrix_carries_the_corners_of_the_crop_to_the_quad(photo: Image) -> None:
    crop = align(photo, Face(turned(FIVE, 20, (110, 130))), 64, source="a.jpg")
    corners = np.array([[0, 0, 1], [0, 64, 1], [64, 64, 1], [64, 0, 1]])
    np.testing.assert_allclose(corners @ crop.matrix.T, crop.quad)
    assert (crop.size_px, crop.source, crop.source_size) == (64, "a.jpg", (300, 260))
    assert crop.img.shape == (1, 3, 64, 64)
    assert crop.native_px == math.ceil(240 * 0.97)


def test_a_crop_on_the_pixel_grid_is_the_photo(photo: Image) -> None:
    quad = np.array([[40.0, 30], [40, 130], [140, 130], [140, 30]])
    crop = crop_quad(photo, quad, size_px=100)
    np.testing.assert_array_equal(at(crop.image), at(photo.crop((40, 30, 140, 130))))
    sideways = crop_quad(photo, np.roll(quad, -1, axis=0), size_px=100)  # top left is now bottom left
    np.testing.assert_array_equal(at(sideways.image), at(photo.crop((40, 30, 140, 130)).transpose(4)))


def test_pixel_centres_lie_at_one_half() -> None:
    """A crop of a smooth function has the function's values at the places that the matrix names."""
    crop = align(smooth_photo(), Face(turned(FIVE, -15, (110, 130)) * 0.8 + 30), 96)
    v, u = np.mgrid[0:96, 0:96] + 0.5
    x, y = np.moveaxis(np.stack([u, v, np.ones_like(u)], -1) @ crop.matrix.T, -1, 0)
    expected = 127 + 120 * np.sin(x / 29 + y / 41)
    assert np.abs(at(crop.image)[..., 0] - expected).max() < 2


def test_shrinking_averages_what_would_alias() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    quad = np.array([[6.0, 6], [6, 506], [506, 506], [506, 6]])
    inner = at(crop_quad(PIL.Image.fromarray(stripes), quad, size_px=64).image)[4:-4, 4:-4]
    assert np.abs(inner - 127.5).max() < 4


def test_outside_of_the_photo_lies_its_mirror_image() -> None:
    photo = smooth_photo(100, 100)
    quad = np.array([[-20.0, 10], [-20, 70], [40, 70], [40, 10]])
    pixels = at(crop_quad(photo, quad, size_px=60).image)
    np.testing.assert_array_equal(pixels[:, 20:], at(photo)[10:70, :40])
    assert np.abs(pixels[:, 12:20] - at(photo)[10:70, :8][:, ::-1]).mean() < 3
    far = np.array([[-150.0, -150], [-150, 250], [250, 250], [250, -150]])  # the photo is a quarter of the side
    assert crop_quad(photo, far, size_px=50).image.size == (50, 50)


def test_a_crop_beside_the_photo_is_refused(photo: Image) -> None:
    quad = np.array([[0.0, 0], [0, 10], [10, 10], [10, 0]])
    for move in ([-10, 0], [300, 0], [0, 260], [0, -10]):
        with pytest.raises(InputError, match="outside of the 300x260 photo"):
            crop_quad(photo, quad + move, size_px=8)
    with pytest.raises(InputError, match="at least 1 px, got 0"):
        crop_quad(photo, quad, size_px=0)


# ----- the mask and the way back


@pytest.mark.parametrize("size_px", [32, 129, 256])
def test_mask_is_full_on_the_face_and_nothing_at_the_border(size_px: int) -> None:
    m = mask(size_px)
    assert m.shape == (1, 1, size_px, size_px)
    border = torch.cat([m[..., 0, :], m[..., -1, :], m[..., 0], m[..., -1]])
    assert border.max() == 0
    assert m.min() == 0
    for x, y in ((0.38, 0.47), (0.62, 0.47), (0.5, 0.61), (0.39, 0.73), (0.61, 0.73), (0.5, 0.85)):
        assert m[0, 0, int(y * size_px), int(x * size_px)] > 0.99
    torch.testing.assert_close(m, m.flip(-1))


@pytest.mark.parametrize("size_px", [40, 128, 233, 400])
@pytest.mark.parametrize("degrees", [0, 17, 160])
def test_an_unedited_crop_gives_the_photo_back(photo: Image, size_px: int, degrees: float) -> None:
    crop = align(photo, Face(turned(FIVE, degrees, (130, 130))), size_px)
    np.testing.assert_array_equal(at(paste_back(photo, crop, crop.img)), at(photo))


def test_plain_replacement_comes_near_the_photo_where_the_crop_is_dense() -> None:
    photo = smooth_photo()
    crop = align(photo, Face(turned(FIVE, 17, (130, 130))), 233)
    pasted = paste_back(photo, crop, crop.img, keep_detail=False)
    assert psnr(at(pasted), at(photo)) > 50


@pytest.mark.parametrize("keep_detail", [True, False])
def test_pixels_outside_of_the_mask_are_the_photos(photo: Image, keep_detail: bool) -> None:
    crop = align(photo, Face(turned(FIVE, 30, (110, 130))), 64)
    edited = -torch.ones(1, 3, 32, 32)
    pasted = paste_back(photo, crop, edited, keep_detail=keep_detail)
    changed = (at(pasted) != at(photo)).any(2)
    y, x = np.nonzero(changed)
    inverse = np.linalg.inv(np.vstack([crop.matrix, [0, 0, 1]]))
    uv = np.stack([x + 0.5, y + 0.5, np.ones(len(x))], -1) @ inverse.T / 64
    radius = np.linalg.norm(np.abs(2 * uv[:, :2] - 1), ord=3, axis=1)
    assert radius.max() < 0.965
    assert changed.sum() > 10_000
    centre = (crop.quad.mean(0)).astype(int)
    assert at(pasted)[centre[1], centre[0]].max() <= 1  # black, as the edit says
    assert pasted is not photo


def test_an_edit_lands_where_it_was_painted() -> None:
    photo = PIL.Image.new("RGB", (300, 260), "gray")
    crop = align(photo, Face(turned(FIVE, 25, (130, 130))), 128)
    img = crop.img
    img[0, 0, 58:62, 38:42] = 1.0  # a red dot about (40, 60) of the crop
    pasted = at(paste_back(photo, crop, img))
    y, x = np.nonzero(pasted[..., 0] > 190)
    np.testing.assert_allclose([x.mean() + 0.5, y.mean() + 0.5], crop.matrix @ [40, 60, 1], atol=0.3)


def test_detail_stays_where_the_edit_changed_nothing(photo: Image) -> None:
    """A coarse crop, half of it edited: the other half keeps the photo's pixels, plain replacement blurs them."""
    crop = align(photo, Face(FIVE), 48)
    img = crop.img
    img[..., 24:] = 0.9
    kept, plain = (at(paste_back(photo, crop, img, keep_detail=keep)) for keep in (True, False))
    left = (slice(60, 160), slice(40, 95))
    assert psnr(kept[left], at(photo)[left]) > 45 > 30 > psnr(plain[left], at(photo)[left])
    right = (slice(60, 160), slice(125, 180))
    assert np.abs(kept[right] - 0.95 * 255).max() < 12


def test_a_face_cut_by_the_border_goes_back(photo: Image) -> None:
    crop = align(photo, Face(FIVE - (60, 70)), 64)
    np.testing.assert_array_equal(at(paste_back(photo, crop, crop.img)), at(photo))
    assert (at(paste_back(photo, crop, -crop.img))[:40, :40] != at(photo)[:40, :40]).any()


def test_paste_back_says_what_does_not_fit(photo: Image) -> None:
    crop = align(photo, Face(FIVE), 32)
    with pytest.raises(InputError, match="from a photo of 300x260, this one is 260x300") as info:
        paste_back(photo.transpose(4), crop, crop.img)
    assert "the photo that it came from" in info.value.hint
    with pytest.raises(InputError, match=r"must be \[1, 3, S, S\], got \[1, 3, 32, 16\]"):
        paste_back(photo, crop, crop.img[..., :16])


def test_paste_back_keeps_the_colour_profile(photo: Image) -> None:
    photo.info["icc_profile"] = b"profile"
    crop = align(photo, Face(FIVE), 32)
    assert paste_back(photo, crop, crop.img).info["icc_profile"] == b"profile"


# ----- the record


def test_the_record_survives_a_file(photo: Image, tmp_path: Path) -> None:
    crop = align(photo, Face(turned(FIVE, 12.3, (110, 130))), 64, source="group/é.jpg")
    save_crop(crop, tmp_path / "a.json")
    again = load_crop(tmp_path / "a.json", crop.image)
    np.testing.assert_array_equal(again.quad, crop.quad)
    assert (again.source, again.source_size, again.size_px) == ("group/é.jpg", (300, 260), 64)
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["matrix"] == crop.matrix.tolist()
    assert record["size_px"] == 64
    resized = load_crop(tmp_path / "a.json", crop.image.resize((128, 128)))
    assert resized.matrix[0, 0] == pytest.approx(crop.matrix[0, 0] / 2)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"quad": 1, "source": "", "source_size": [1, 1]}', '{"quad": [], "source_size": 3}', "\0"]
)
def test_a_foreign_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    for name in ("a.json", "none.json"):
        with pytest.raises(UnsupportedFileError, match=name) as info:
            load_crop(tmp_path / name, PIL.Image.new("RGB", (8, 8)))
        assert info.value.hint


def test_a_crop_that_is_no_square_is_refused(photo: Image, tmp_path: Path) -> None:
    save_crop(align(photo, Face(FIVE), 16), tmp_path / "a.json")
    with pytest.raises(UnsupportedFileError, match="no square crop"):
        load_crop(tmp_path / "a.json", PIL.Image.new("RGB", (8, 9)))


# ----- real faces


def test_five_points_frame_a_face_as_the_training_set_does(shared: Path) -> None:
    """Over forty people the crops of `align` agree in place and size with the pictures that the generator learnt."""
    table = read_table(shared / "data" / "scenes250.csv")
    points = np.stack(
        [table[f"{name}_{axis}"] for name in ("leye", "reye", "nose", "lmouth", "rmouth") for axis in "xy"]
    )
    names, counts = np.unique(table["file"], return_counts=True)
    singles = names[counts == 1][::240][:45]
    shifts = []
    with (
        zipfile.ZipFile(shared / "data" / "scenes250.zip") as scenes,
        zipfile.ZipFile(shared / "data" / "faces128.zip") as f,
    ):
        for name in singles:
            if name not in f.namelist():
                continue
            landmarks = points[:, table["file"] == name].reshape(5, 2) + 0.5  # from pixel numbers to px
            scene = PIL.Image.open(io.BytesIO(scenes.read(str(name)))).convert("RGB")
            expected = to_tensor(PIL.Image.open(io.BytesIO(f.read(str(name)))).convert("RGB"))
            shifts.append(shift_and_growth(align(scene, Face(landmarks), 128).img, expected))
    assert len(shifts) > 30
    dx, dy, growth = np.median(shifts, axis=0)
    assert abs(dx) < 0.6
    assert abs(dy) < 0.6
    assert abs(growth) < 0.012


def shift_and_growth(img: torch.Tensor, expected: torch.Tensor) -> np.ndarray:
    """Least-squares (dx, dy) px and growth that carry `img` onto `expected`, by Gauss-Newton on blurred grey."""
    grey, target = (torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 5, 1, 2)[0, 0] for x in (img, expected))
    centred = torch.arange(128) - 63.5
    y, x = torch.meshgrid(centred, centred, indexing="ij")
    weight = torch.exp(-(x**2 + y**2) / (2 * 35**2))
    p = torch.zeros(3)
    for _ in range(6):
        where = torch.stack([x * (1 + p[2]) + p[0], y * (1 + p[2]) + p[1]], -1)[None] / 64
        moved = torch.nn.functional.grid_sample(grey[None, None], where, padding_mode="border", align_corners=False)[
            0, 0
        ]
        gy, gx = torch.gradient(moved)
        columns = torch.stack([gx, gy, gx * x + gy * y, moved, torch.ones_like(x)], -1).reshape(-1, 5)
        weighted = columns.T * weight.flatten()
        solved = torch.linalg.solve(weighted @ columns, weighted @ target.flatten())
        p = p + solved[:3] / solved[3]
    return p.numpy()


def test_the_photo_of_a_crop_is_found_again(photo: Image, tmp_path: Path) -> None:
    taken, crops = tmp_path / "photos" / "a.png", tmp_path / "crops"
    taken.parent.mkdir()
    photo.save(taken)
    save_crop(align(photo, Face(FIVE), 16, source="a.png"), crops / "a_0.json", photo=taken)
    assert find_photo(crops / "a_0.json").samefile(taken)
    moved = taken.rename(crops / "a.png")
    assert find_photo(crops / "a_0.json").samefile(moved)
    moved.unlink()
    with pytest.raises(InputError, match="is gone") as caught:
        find_photo(crops / "a_0.json")
    assert "beside the crop" in caught.value.hint


@pytest.mark.parametrize("quad", [np.zeros((4, 2)), np.array([[0, 0], [0, 9], [5, 9], [5, 0]])], ids=["none", "oblong"])
def test_a_record_of_no_square_is_refused(quad: np.ndarray, tmp_path: Path) -> None:
    record = {"quad": quad.tolist(), "source_size": [20, 20], "source": "a.png"}
    (tmp_path / "a_0.json").write_text(json.dumps(record))
    with pytest.raises(UnsupportedFileError, match="no square crop"):
        load_crop(tmp_path / "a_0.json", PIL.Image.new("RGB", (8, 8)))


def test_a_change_is_added_to_what_the_photo_shows_now() -> None:
    photo = PIL.Image.new("RGB", (80, 60), (100, 100, 100))
    quad = np.array([[20.0, 10], [20, 50], [60, 50], [60, 10]])
    crop = crop_quad(photo, quad, size_px=16)
    brighter = paste_change(photo, crop, torch.full((1, 3, 16, 16), 0.1))
    twice = paste_change(brighter, crop, torch.full((1, 3, 16, 16), 0.1))
    levels = [image.getpixel((40, 30))[0] for image in (photo, brighter, twice)]
    assert levels == pytest.approx([100, 113, 126], abs=1)
    assert twice.getpixel((5, 5)) == (100, 100, 100)
    assert paste_change(photo, crop, torch.zeros(1, 3, 16, 16)).tobytes() == photo.tobytes()


def test_quads_beside_the_photo_show_nothing_of_it() -> None:
    square = np.array([[0.0, 0], [0, 10], [10, 10], [10, 0]])
    for x, y, shows in ((0, 0, True), (-10, 0, False), (-9, 0, True), (80, 0, False), (79, 0, True), (0, 60, False)):
        assert is_in_photo(square + np.array([x, y]), (80, 60)) == shows, (x, y)
