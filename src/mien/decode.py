"""The one decoder: files and bytes to upright RGB pictures; imports no more than Pillow and numpy.

What a camera or a program wrote in another form (turned, transparent, four inks, 16 bits, moving) becomes one upright
RGB picture, or one `UnsupportedFileError` that says why.
"""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
from PIL.Image import Image

from mien.errors import InputError, MissingExtraError, UnsupportedFileError

__all__ = ["MAX_PIXELS", "PHOTO_SUFFIXES", "open_photo", "read_photo"]

MAX_PIXELS = 128_000_000
"""Largest photo that is decoded, width times height: a 108-megapixel phone passes, a decompression bomb does not."""

# Decoders that may be tried; those that start other programs (EPS) are left out on purpose.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "ICO", "AVIF", "HEIF")

PHOTO_SUFFIXES = frozenset(".jpg .jpeg .png .webp .gif .bmp .tif .tiff .jp2 .ppm .pgm .ico .avif .heic .heif".split())
"""Suffixes of the files that `open_photo` can read, in lower case; it goes by the content, this is for folders."""

HEAD = 12  # bytes that tell a HEIC file
HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))

logger = logging.getLogger(__name__)


def _register_heic(name: str) -> None:
    try:
        import pillow_heif
    except ImportError as err:
        raise MissingExtraError(f"{name} is a HEIC photo", hint="pip install 'mien[heic]', or save it as JPEG") from err
    pillow_heif.register_heif_opener()


def _check_file(path: Path) -> bytes:
    """Return the first bytes of a regular file."""
    if path.is_dir():
        raise UnsupportedFileError(f"{path} is a folder, not a picture", hint="give the pictures in it")
    if path.exists() and not path.is_file():
        raise UnsupportedFileError(f"{path} is not a regular file", hint="copy the picture into a file")
    try:
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}", hint="check the name and the permissions") from err


def _check_head(head: bytes, name: str) -> None:
    if not head:
        raise UnsupportedFileError(f"{name} is empty", hint="copy or download the picture again")
    if head[4:8] == b"ftyp" and head[8:HEAD] in HEIC_BRANDS:
        _register_heic(name)


def _upright(name: str, image: Image) -> Image:
    """Apply the EXIF orientation; a broken EXIF block is no reason to refuse the pixels."""
    try:
        return PIL.ImageOps.exif_transpose(image)
    except Exception as err:
        logger.warning("%s: the EXIF block is damaged and was ignored: %s", Path(name).name, err)
        return image


def _scale_16_bit(name: str, image: Image) -> Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        hint = "save it with 8 or 16 bits a channel"
        raise UnsupportedFileError(f"{name} holds greys from {values.min()} to {values.max()}", hint=hint)
    return PIL.Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257, rounded


def _to_rgb(name: str, image: Image) -> Image:
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P", "PA") else None
    if image.mode.startswith("I"):
        image = _scale_16_bit(name, image)
    elif image.mode == "F":
        raise UnsupportedFileError(f"{name} holds floating-point pixels", hint="save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    rgb.info = {"icc_profile": profile} if profile else {}
    return rgb


def _formats() -> list[str]:
    PIL.Image.init()
    return [name for name in FORMATS if name in PIL.Image.OPEN]


def _too_large(name: str, what: str) -> UnsupportedFileError:
    return UnsupportedFileError(f"{name} is too large: {what}", hint="shrink the picture, or raise max_pixels")


def _decode(source: Path | io.BytesIO, name: str, max_pixels: int) -> Image:
    """Open, check the size, then decode: the only place where Pillow's many errors become ours."""
    try:
        with PIL.Image.open(source, formats=_formats()) as opened:
            if opened.width * opened.height > max_pixels:
                raise _too_large(name, f"{opened.width}x{opened.height} px")
            num_frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)  # MPO: previews, stereo
            if num_frames > 1:
                logger.warning("%s holds %d pictures; the first is taken", Path(name).name, num_frames)
            opened.load()
            return _to_rgb(name, _upright(name, opened))
    except UnsupportedFileError:
        raise
    except PIL.UnidentifiedImageError as err:
        hint = f"known kinds: {' '.join(sorted(PHOTO_SUFFIXES))}"
        raise UnsupportedFileError(f"{name} is not a picture that mien can read", hint=hint) from err
    except PIL.Image.DecompressionBombError as err:
        raise _too_large(name, "far too many pixels") from err
    except MemoryError as err:
        raise _too_large(name, "more pixels than memory") from err
    except Exception as err:  # a decoder met bytes that it did not expect; which error it raises depends on the format
        hint = "the file is cut short or damaged; copy or download it again"
        raise UnsupportedFileError(f"{name} cannot be decoded: {err}", hint=hint) from err


def _watched(source: Path | io.BytesIO, name: str, max_pixels: int) -> Image:
    """Decode, and log what Pillow warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = _decode(source, name, max_pixels)
    for warning in caught:
        if not issubclass(warning.category, PIL.Image.DecompressionBombWarning):  # max_pixels is our limit
            logger.warning("%s: %s", Path(name).name, warning.message)
    return image


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
    _check_head(_check_file(path), str(path))
    return _watched(path, str(path), max_pixels)


def read_photo(data: bytes, *, max_pixels: int = MAX_PIXELS, name: str = "the picture") -> Image:
    """Read a photo from the bytes of its file, as `open_photo` does; `name` is what errors call it."""
    _check_head(data[:HEAD], name)
    return _watched(io.BytesIO(data), name, max_pixels)
