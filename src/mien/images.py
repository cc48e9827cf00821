"""The one door for pixels: files to RGB pictures, pictures to tensors and back.

Nothing outside this file knows 0..255 or an EXIF tag. What a camera or a program wrote in another form (turned,
transparent, four inks, 16 bits, moving) becomes one upright RGB picture, or one `UnsupportedFileError` that says why.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from mien.atomic import replacing
from mien.errors import InputError, MissingExtraError, UnsupportedFileError

__all__ = ["MAX_PIXELS", "PHOTO_SUFFIXES", "grid", "open_photo", "resize", "save_png", "to_pil", "to_tensor"]

MAX_PIXELS = 128_000_000
"""Largest photo that is decoded, width times height: a 108-megapixel phone passes, a decompression bomb does not."""

# Decoders that may be tried; those that start other programs (EPS) are left out on purpose.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "ICO", "AVIF", "HEIF")

PHOTO_SUFFIXES = frozenset(".jpg .jpeg .png .webp .gif .bmp .tif .tiff .jp2 .ppm .pgm .ico .avif .heic .heif".split())
"""Suffixes of the files that `open_photo` can read, in lower case; it goes by the content, this is for folders."""

HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))

logger = logging.getLogger(__name__)


def to_tensor(image: Image) -> Tensor:
    """Turn an RGB `image` into img [1, 3, H, W], float in [-1, 1].

    >>> to_tensor(PIL.Image.new("RGB", (1, 1), (0, 51, 255))).flatten().tolist()
    [-1.0, -0.6000000238418579, 1.0]
    """
    pixels = torch.from_numpy(np.array(image.convert("RGB")))  # [H, W, 3]
    return pixels.permute(2, 0, 1)[None].float().div_(127.5).sub_(1).contiguous()


def to_pil(img: Tensor) -> list[Image]:
    """Turn `img` [N, 3, H, W], float in [-1, 1], into N RGB images; values outside are clipped.

    The `+ 128` (not 127.5) rounds, so that the way there and back is exact for all 256 values.
    """
    pixels = (img.detach().float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return [PIL.Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).cpu().numpy()]


def resize(img: Tensor, size_px: int | tuple[int, int]) -> Tensor:
    """Resize `img` [N, C, H, W] to a square or to (width, height): bicubic, low-passed first where it shrinks."""
    width, height = (size_px, size_px) if isinstance(size_px, int) else size_px
    if img.shape[-2:] == (height, width):
        return img
    return F.interpolate(img, (height, width), mode="bicubic", antialias=True, align_corners=False)


def save_png(image: Image, path: str | Path) -> None:
    """Write `image` as PNG, whole or not at all; its colour profile, when it has one, goes along.

    Raises:
        MienError: the disk is full or the place cannot be written; what stood there before is untouched.
    """
    with replacing(Path(path)) as part:
        image.save(part, format="PNG", icc_profile=image.info.get("icc_profile"))


def grid(
    images: Sequence[Image],
    *,
    columns: int | None = None,
    row_labels: Sequence[str] = (),
    col_labels: Sequence[str] = (),
    gap_px: int = 4,
) -> Image:
    """Lay pictures of one size out row by row on white, with words above the columns and left of the rows.

    Args:
        images: RGB pictures, all of the size of the first.
        columns: pictures in a row; by default the number of column labels, else about as many as rows.
        row_labels: one for each row, or none.
        col_labels: one for each column, or none.
        gap_px: white between pictures.

    Raises:
        InputError: no pictures, unequal sizes, or labels that do not match the rows or columns.
    """
    if not images:
        raise InputError("a grid needs at least one picture")
    width, height = images[0].size
    if any(image.size != (width, height) for image in images):
        raise InputError(f"the pictures of a grid must have one size, got {sorted({image.size for image in images})}")
    cols = columns or len(col_labels) or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / cols)
    for name, labels, count in (("row", row_labels, rows), ("column", col_labels, cols)):
        if labels and len(labels) != count:
            raise InputError(f"{len(labels)} {name} labels for {count} {name}s")

    font = PIL.ImageFont.load_default(max(10, min(24, height // 9)))
    line_px = math.ceil(font.getbbox("Ag")[3]) + 6
    left = max((math.ceil(font.getlength(label)) for label in row_labels), default=-8) + 8
    top = line_px * max((label.count("\n") + 1 for label in col_labels), default=0)
    sheet_size = (left + cols * (width + gap_px) + gap_px, top + rows * (height + gap_px) + gap_px)
    sheet = PIL.Image.new("RGB", sheet_size, "white")
    for i, image in enumerate(images):
        row, col = divmod(i, cols)
        sheet.paste(image, (left + gap_px + col * (width + gap_px), top + gap_px + row * (height + gap_px)))
    draw = PIL.ImageDraw.Draw(sheet)
    for col, label in enumerate(col_labels):
        centre = left + gap_px + col * (width + gap_px) + width / 2
        draw.multiline_text((centre, top / 2 + 2), label, fill="black", font=font, anchor="mm", align="center")
    for row, label in enumerate(row_labels):
        middle = top + gap_px + row * (height + gap_px) + height / 2
        draw.text((left - 4, middle), label, fill="black", font=font, anchor="rm")
    return sheet


def _register_heic(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError as err:
        raise MissingExtraError(f"{path} is a HEIC photo", hint="pip install 'mien[heic]', or save it as JPEG") from err
    pillow_heif.register_heif_opener()


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UnsupportedFileError(f"{path} is a folder, not a picture", hint="give the pictures in it")
    if path.exists() and not path.is_file():
        raise UnsupportedFileError(f"{path} is not a regular file", hint="copy the picture into a file")
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}", hint="check the name and the permissions") from err
    if not head:
        raise UnsupportedFileError(f"{path} is empty", hint="copy or download the picture again")
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        _register_heic(path)


def _upright(path: Path, image: Image) -> Image:
    """Apply the EXIF orientation; a broken EXIF block is no reason to refuse the pixels."""
    try:
        return PIL.ImageOps.exif_transpose(image)
    except Exception as err:
        logger.warning("%s: the EXIF block is damaged and was ignored: %s", path.name, err)
        return image


def _scale_16_bit(path: Path, image: Image) -> Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        hint = "save it with 8 or 16 bits a channel"
        raise UnsupportedFileError(f"{path} holds greys from {values.min()} to {values.max()}", hint=hint)
    return PIL.Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257, rounded


def _to_rgb(path: Path, image: Image) -> Image:
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P", "PA") else None
    if image.mode.startswith("I"):
        image = _scale_16_bit(path, image)
    elif image.mode == "F":
        raise UnsupportedFileError(f"{path} holds floating-point pixels", hint="save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    rgb.info = {"icc_profile": profile} if profile else {}
    return rgb


def _formats() -> list[str]:
    PIL.Image.init()
    return [name for name in FORMATS if name in PIL.Image.OPEN]


def _too_large(path: Path, what: str) -> UnsupportedFileError:
    return UnsupportedFileError(f"{path} is too large: {what}", hint="shrink the picture, or raise max_pixels")


def _decode(path: Path, max_pixels: int) -> Image:
    """Open, check the size, then decode: the only place where Pillow's many errors become ours."""
    try:
        with PIL.Image.open(path, formats=_formats()) as opened:
            if opened.width * opened.height > max_pixels:
                raise _too_large(path, f"{opened.width}x{opened.height} px")
            num_frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)  # MPO: previews, stereo
            if num_frames > 1:
                logger.warning("%s holds %d pictures; the first is taken", path.name, num_frames)
            opened.load()
            return _to_rgb(path, _upright(path, opened))
    except UnsupportedFileError:
        raise
    except PIL.UnidentifiedImageError as err:
        hint = f"known kinds: {' '.join(sorted(PHOTO_SUFFIXES))}"
        raise UnsupportedFileError(f"{path} is not a picture that mien can read", hint=hint) from err
    except PIL.Image.DecompressionBombError as err:
        raise _too_large(path, "far too many pixels") from err
    except MemoryError as err:
        raise _too_large(path, "more pixels than memory") from err
    except Exception as err:  # a decoder met bytes that it did not expect; which error it raises depends on the format
        hint = "the file is cut short or damaged; copy or download it again"
        raise UnsupportedFileError(f"{path} cannot be decoded: {err}", hint=hint) from err


def open_photo(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Read a photo as it is meant to be seen: upright, RGB, 8 bits, the first picture of the file.

    Transparency is laid on white. 16-bit greys are scaled to 8 bits, not clipped. Pixels of an RGB file are not
    changed; its colour profile stays in `image.info["icc_profile"]` and goes along when the picture is saved. No other
    metadata is kept.

    Args:
        path: JPEG, PNG, WebP, GIF, BMP, TIFF, JPEG 2000, AVIF, PPM or ICO; HEIC with the extra `heic`.
        max_pixels: more than this, width times height, is refused before anything is decoded.

    Raises:
        InputError: there is no such file, or it may not be read.
        UnsupportedFileError: a folder, empty, damaged, too large, or not a picture.
        MissingExtraError: a HEIC file, and the extra is not installed.
    """
    path = Path(path)
    _check_file(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = _decode(path, max_pixels)
    for warning in caught:
        if not issubclass(warning.category, PIL.Image.DecompressionBombWarning):  # max_pixels is our limit
            logger.warning("%s: %s", path.name, warning.message)
    return image
