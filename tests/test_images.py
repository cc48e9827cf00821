"""Every kind of picture file becomes the right picture or one clear error."""

from __future__ import annotations

import io
import logging
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import torch
from PIL.Image import Image

from mien.errors import InputError, MienError, MissingExtraError, UnsupportedFileError
from mien.images import grid, open_photo, resize, save_png, to_pil, to_tensor

ORIENTATION_TAG = 0x0112


@pytest.fixture
def picture() -> Image:
    """A drawing without symmetry, 24 x 16 px, so that a wrong turn, mirror or channel order shows."""
    y, x = np.mgrid[0:16, 0:24]
    return PIL.Image.fromarray(np.stack([x * 10, y * 15, (x + y) * 6], 2).astype(np.uint8))


def pixels(image: Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def png_bytes(width: int, height: int) -> bytes:
    """A PNG header that promises `width` x `height` pixels, without the pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# ----- tensors


def test_all_256_values_survive_the_way_there_and_back() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = PIL.Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], 2))
    img = to_tensor(image)
    assert img.shape == (1, 3, 16, 16) and img.min() == -1 and img.max() == 1
    np.testing.assert_array_equal(np.asarray(to_pil(img)[0]), np.asarray(image))


def test_greys_become_rgb_and_other_channels_are_refused() -> None:
    (image,) = to_pil(torch.tensor([-1.0, 0.0, 1.0, 0.2]).reshape(1, 1, 2, 2))
    assert image.mode == "RGB" and np.asarray(image)[..., 2].tolist() == [[0, 128], [255, 153]]
    with pytest.raises(InputError, match="have 4 channels"):
        to_pil(torch.zeros(1, 4, 2, 2))


def test_to_pil_clips_and_keeps_channel_order() -> None:
    img = torch.tensor([2.0, 0.0, -3.0]).reshape(1, 3, 1, 1).expand(2, 3, 4, 5)
    first, second = to_pil(img)
    assert first.size == (5, 4) and first.getpixel((0, 0)) == (255, 128, 0)
    assert first.tobytes() == second.tobytes()


def test_resize_keeps_a_ramp_and_removes_what_would_alias() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    small = resize(ramp, 16)
    torch.testing.assert_close(small[0, 0, 3, 2:-2], ramp.reshape(1, 3, 64, 16, 4).mean(-1)[0, 0, 3, 2:-2])
    stripes = torch.ones(1, 3, 64, 64)
    stripes[..., ::2] = -1
    assert resize(stripes, 16)[..., 2:-2].abs().max() < 0.02
    assert resize(ramp, 64) is ramp


# ----- files as they come


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_upright(picture: Image, tmp_path: Path, orientation: int) -> None:
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Transpose that stores an upright picture this way
    stored = picture.transpose(PIL.Image.Transpose(inverse[orientation])) if orientation > 1 else picture
    exif = PIL.Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    opened = open_photo(tmp_path / "a.png")
    assert opened.size == picture.size and opened.tobytes() == picture.tobytes()
    stored.resize((240, 160) if orientation < 5 else (160, 240)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert np.abs(pixels(open_photo(tmp_path / "a.jpg").resize(picture.size)) - pixels(picture)).mean() < 4


def test_transparency_is_laid_on_white(picture: Image, tmp_path: Path) -> None:
    rgba = picture.convert("RGBA")
    rgba.putalpha(PIL.Image.linear_gradient("L").resize(picture.size))
    rgba.save(tmp_path / "rgba.png")
    alpha = pixels(rgba)[..., 3:] / 255
    expected = pixels(picture) * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(open_photo(tmp_path / "rgba.png")) - expected).max() <= 1

    PIL.Image.new("LA", (3, 2), (40, 0)).save(tmp_path / "la.png")
    assert open_photo(tmp_path / "la.png").getpixel((1, 1)) == (255, 255, 255)

    palette = picture.quantize(8)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    opened = open_photo(tmp_path / "p.png")
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((23, 15)) == palette.convert("RGB").getpixel((23, 15))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_become_rgb(picture: Image, tmp_path: Path, mode: str) -> None:
    stored = picture.convert(mode)
    stored.save(tmp_path / "a.png")
    opened = open_photo(tmp_path / "a.png")
    assert opened.mode == "RGB" and opened.tobytes() == stored.convert("RGB").tobytes()


def test_four_inks_become_three_lights(tmp_path: Path) -> None:
    red_ink = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for name in ("a.jpg", "a.tif"):
        red_ink.save(tmp_path / name)
        red, green, blue = open_photo(tmp_path / name).getpixel((8, 8))
        assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    PIL.Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    opened = np.asarray(open_photo(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(opened[..., 0], np.round(values / 257))
    np.testing.assert_array_equal(opened[..., 0], opened[..., 2])


def test_floating_point_and_32_bit_greys_are_refused(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    PIL.Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "i.tif")
    for name in ("f.tif", "i.tif"):
        with pytest.raises(UnsupportedFileError, match=name) as info:
            open_photo(tmp_path / name)
        assert "8 or 16 bits" in info.value.hint


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_pictures_the_first_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    with caplog.at_level(logging.WARNING):
        assert open_photo(tmp_path / f"a.{suffix}").getpixel((4, 4)) == (255, 0, 0)
    assert f"a.{suffix} holds 3 pictures; the first is taken" in caplog.text


def test_the_colour_profile_stays_with_untouched_pixels(picture: Image, tmp_path: Path) -> None:
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "a.png", icc_profile=profile)
    opened = open_photo(tmp_path / "a.png")
    save_png(opened, tmp_path / "b.png")
    again = PIL.Image.open(tmp_path / "b.png")
    assert again.info["icc_profile"] == profile and again.tobytes() == picture.tobytes()


def test_places_and_times_are_not_passed_on(picture: Image, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x010E] = "where and when"
    picture.save(tmp_path / "a.jpg", exif=exif, comment="secret")
    opened = open_photo(tmp_path / "a.jpg")
    save_png(opened, tmp_path / "b.png")
    assert opened.info == {}
    assert b"where" not in (tmp_path / "b.png").read_bytes()


def test_heic_opens_with_the_extra(picture: Image, tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs mien[heic]")
    large = picture.resize((240, 160))
    pillow_heif.from_pillow(large).save(tmp_path / "a.heic", quality=95)
    (tmp_path / "a.heic").rename(tmp_path / "b.jpg")  # the content counts, not the name
    assert np.abs(pixels(open_photo(tmp_path / "b.jpg")) - pixels(large)).mean() < 4


def test_heic_without_the_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(64))
    with pytest.raises(MissingExtraError, match="is a HEIC photo") as info:
        open_photo(tmp_path / "a.heic")
    assert "mien[heic]" in info.value.hint


# ----- what is no picture


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_bytes(13_000, 10_000))
    (tmp_path / "bomb.png").write_bytes(png_bytes(2**31 - 1, 2**31 - 1))
    with pytest.raises(UnsupportedFileError, match=r"large.png is too large: 13000x10000 px"):
        open_photo(tmp_path / "large.png")
    with pytest.raises(UnsupportedFileError, match=r"bomb.png is too large"):
        open_photo(tmp_path / "bomb.png")


def test_the_limit_is_the_callers(picture: Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.png")
    assert open_photo(tmp_path / "a.png", max_pixels=24 * 16).size == (24, 16)
    with pytest.raises(UnsupportedFileError, match="24x16 px"):
        open_photo(tmp_path / "a.png", max_pixels=24 * 16 - 1)


def test_a_picture_of_one_pixel_is_a_picture(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (1, 1), "red").save(tmp_path / "a.png")
    assert open_photo(tmp_path / "a.png").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp", "jp2", "avif"])
def test_a_file_cut_short_is_refused(picture: Image, tmp_path: Path, suffix: str) -> None:
    whole = io.BytesIO()
    picture.resize((240, 160)).save(whole, format=PIL.Image.registered_extensions()[f".{suffix}"])
    data = whole.getvalue()
    for part in (0.9, 0.5, 0.1):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(UnsupportedFileError) as info:
            open_photo(path)
        assert info.value.hint and info.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jpg", b"", "is empty"),
        ("words.jpg", b"dear diary, " * 50, "is not a picture"),
        ("page.png", b"<!doctype html><html>not found</html>", "is not a picture"),
        ("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
        ("zeros.png", bytes(5000), "is not a picture"),
    ],
)
def test_what_is_no_picture_is_said(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedFileError, match=f"{name} {message}") as info:
        open_photo(tmp_path / name)
    assert info.value.hint


def test_folders_and_missing_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFileError, match="is a folder"):
        open_photo(tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*none.jpg: No such file"):
        open_photo(tmp_path / "none.jpg")


def test_a_damaged_exif_block_does_not_cost_the_picture(picture: Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20))
    assert open_photo(tmp_path / "a.jpg").size == picture.size


def test_random_damage_ends_in_a_picture_or_one_of_our_errors(picture: Image, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("jpg", "png", "gif", "webp", "tif"):
        whole = io.BytesIO()
        picture.save(whole, format=PIL.Image.registered_extensions()[f".{suffix}"])
        for _ in range(60):
            data = np.frombuffer(whole.getvalue(), np.uint8).copy()
            data[rng.integers(0, len(data), 6)] = rng.integers(0, 256, 6)
            (tmp_path / "a").write_bytes(data.tobytes())
            try:
                assert open_photo(tmp_path / "a").mode == "RGB"
            except MienError as err:
                assert isinstance(err, UnsupportedFileError) and err.hint


# ----- writing and grids


def test_save_png_keeps_the_old_file_when_the_disk_is_full(
    picture: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_png(picture, tmp_path / "a.png")

    def half_write(self: Image, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"\x89PNG")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PIL.Image.Image, "save", half_write)
    with pytest.raises(MienError, match=r"cannot write .*a.png: No space left on device"):
        save_png(PIL.Image.new("RGB", (9, 9)), tmp_path / "a.png")
    monkeypatch.undo()
    assert open_photo(tmp_path / "a.png").tobytes() == picture.tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_grid_lays_pictures_out_row_by_row() -> None:
    colours = ["red", "lime", "blue", "black", "gray"]
    images = [PIL.Image.new("RGB", (20, 10), colour) for colour in colours]
    sheet = grid(images, columns=3, gap_px=2)
    assert sheet.size == (3 * 22 + 2, 2 * 12 + 2)
    assert sheet.getpixel((2 + 22, 2)) == (0, 255, 0) and sheet.getpixel((2, 2 + 12)) == (0, 0, 0)
    assert sheet.getpixel((67, 25)) == (255, 255, 255)  # the sixth place stays empty


def test_grid_labels_take_place_beside_the_pictures() -> None:
    images = [PIL.Image.new("RGB", (64, 64), "white")] * 4
    plain = grid(images, columns=2)
    labelled = grid(images, col_labels=["photo", "two\nlines"], row_labels=["first", "second"])
    left, top = labelled.width - plain.width, labelled.height - plain.height
    assert left > 20 and top > 20
    ink = pixels(labelled).min(2) < 128
    assert ink[:top].any() and ink[:, :left].any() and not ink[top:, left:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row_labels": ["a"]}, "1 row labels for 2 rows"),
        ({"columns": 2, "col_labels": ["a"]}, "1 column labels for 2"),
    ],
)
def test_grid_says_what_does_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid([PIL.Image.new("RGB", (8, 8))] * 3, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one"):
        grid([])
    with pytest.raises(InputError, match="one size"):
        grid([PIL.Image.new("RGB", (8, 8)), PIL.Image.new("RGB", (8, 9))])
