"""What every door does with pictures of strangers: bounds and the block list on the way in, marks on the way out.

A door calls `admit` with what came, works on the pictures that it returns, and sends what `seal` returns; nothing else
of an upload (its name, its type, its metadata) is used or kept.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from PIL.Image import Image

from mien.app.settings import MarkSettings, TrustSettings
from mien.app.trust.sandbox import decode_apart
from mien.errors import InputError, UnsupportedFileError
from mien.marks import Origin, mp4_box, png_info, xmp_packet
from mien.video import save_mp4

__all__ = [
    "CONSENT",
    "FORMATS",
    "BlockList",
    "BlockedError",
    "admit",
    "load_block_list",
    "looks_of",
    "seal",
    "seal_clip",
    "spare",
]

CONSENT = {
    "en": "Send pictures of yourself, or of people who agreed to it. Results are marked as changed by a machine.",
    "ru": "Присылайте снимки себя или людей, которые на это согласны. Результаты помечаются как изменённые машиной.",
}
"""What a door shows before the first picture, by language."""

FORMATS = {"png": "PNG", "jpeg": "JPEG"}
"""Kinds of files that doors send."""

MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM|II\*\0|MM\0\*|RIFF....WEBP|\0\0\0\x0cjP  |\xff\x4f\xff\x51"
    rb"|P[1-6][\s#]|....ftyp(?:avif|avis|mif1|msf1|heic|heix|heim|heis|hevc|hevx)",
    re.DOTALL,
)
LOOKS_BITS = 6  # of 64 may differ between two files of one picture
JPEG_QUALITY = 95

Item = TypeVar("Item")


class BlockedError(InputError):
    """The operator refuses this user or this picture."""


@dataclass(frozen=True)
class BlockList:
    """Whom and what the operator refuses.

    Attributes:
        users: as the doors name them.
        files: sha256 of files.
        looks: see `looks_of`; what looks like one of these is refused too.
    """

    users: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    looks: frozenset[int] = frozenset()

    def check_user(self, user: str) -> None:
        """Refuse a user who is on the list.

        Raises:
            BlockedError: they are.
        """
        if user in self.users:
            raise BlockedError("you cannot use this service", hint="ask its operator")

    def check_file(self, data: bytes) -> None:
        """Refuse a file that is on the list.

        Raises:
            BlockedError: it is.
        """
        if self.files and sha256(data).hexdigest() in self.files:
            raise _blocked_picture()

    def check_looks(self, image: Image) -> None:
        """Refuse a picture that looks like one on the list.

        Raises:
            BlockedError: it does.
        """
        if self.looks:
            looks = looks_of(image)
            if any((looks ^ known).bit_count() <= LOOKS_BITS for known in self.looks):
                raise _blocked_picture()


def _blocked_picture() -> BlockedError:
    return BlockedError("this picture is not changed here", hint="ask the operator of the service")


def looks_of(image: Image) -> int:
    """Return 64 bits that a picture keeps when it is shrunk or saved again: whether grey grows to the right.

    Source: Krawetz 2013, Kind of Like That (difference hash).
    """
    pixels = image.convert("L").resize((9, 8), PIL.Image.Resampling.BOX).tobytes()
    bits = (pixels[9 * y + x] < pixels[9 * y + x + 1] for y in range(8) for x in range(8))
    return sum(bit << i for i, bit in enumerate(bits))


def load_block_list(path: Path | None) -> BlockList:
    """Read a block list: lines `user NAME`, `sha256 HEX` or `looks HEX`; what follows # is a remark.

    Raises:
        InputError: it cannot be read, or a line is none of these.
    """
    found: dict[str, set[str]] = {"user": set(), "sha256": set(), "looks": set()}
    try:
        lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"cannot read the block list {path}", hint="check MIEN_TRUST_BLOCK_LIST") from err
    for i, line in enumerate(lines):
        kind, _, value = line.partition("#")[0].strip().partition(" ")
        value = value.strip()
        patterns = {"user": r"\S{1,200}", "sha256": r"[0-9a-f]{64}", "looks": r"[0-9a-f]{16}", "": ""}
        if not re.fullmatch(patterns.get(kind, "(?!)"), value):
            raise InputError(f"line {i + 1} of the block list cannot be used", hint="see docs/service.md")
        if kind:
            found[kind].add(value)
    return BlockList(
        frozenset(found["user"]), frozenset(found["sha256"]), frozenset(int(looks, 16) for looks in found["looks"])
    )


# ---- In --------------------------------------------------------------------------------------------------------------


def _check_bytes(data: bytes, settings: TrustSettings) -> None:
    if len(data) > settings.max_bytes:
        size = f"{len(data) / 2**20:.1f} MB"
        hint = f"at most {settings.max_bytes / 2**20:.0f} MB; shrink it or save it as JPEG"
        raise UnsupportedFileError(f"the file is too large: {size}", hint=hint)
    if not MAGIC.match(data):
        hint = "send a photo: JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP or TIFF"
        raise UnsupportedFileError("the file is no picture" if data else "the file is empty", hint=hint)


def admit(
    pictures: Sequence[bytes], *, user: str, settings: TrustSettings, blocked: BlockList | None = None
) -> list[Image]:
    """Let pictures in, or say why not; every door and every worker calls this, before anything else looks at them.

    Args:
        pictures: bytes of files.
        user: as the door names them.
        settings: bounds.
        blocked: whom and what the operator refuses.

    Returns:
        RGB pictures, upright, without metadata; decoded in processes of their own.

    Raises:
        BlockedError: the operator refuses.
        UnsupportedFileError: too large, no picture, damaged.
        InputError: too many.
    """
    blocked = BlockList() if blocked is None else blocked
    blocked.check_user(user)
    if len(pictures) > settings.max_pictures:
        hint = f"at most {settings.max_pictures} at a time"
        raise InputError(f"{len(pictures)} pictures are too many", hint=hint)
    for data in pictures:
        _check_bytes(data, settings)
        blocked.check_file(data)
    images = []
    for data in pictures:
        image = decode_apart(
            data,
            max_pixels=settings.max_pixels,
            max_side_px=settings.max_side_px,
            timeout_s=settings.decode_timeout_s,
            memory_mb=settings.decode_memory_mb,
        )
        blocked.check_looks(image)
        images.append(image)
    return images


def spare(faces: Sequence[Item], settings: TrustSettings) -> tuple[list[Item], str]:
    """Return the faces that are worked on, the largest first, and what the user is told of the others."""
    kept = list(faces[: settings.max_faces])
    told = "" if len(kept) == len(faces) else f"{len(kept)} of {len(faces)} faces are done, the largest"
    return kept, told


# ---- Out -------------------------------------------------------------------------------------------------------------


def _with_letters(image: Image, text: str) -> Image:
    """Write letters into the lower right corner, a fortieth of the shorter side high, readable on any ground."""
    marked = image.copy()
    size = max(10, min(image.size) // 24)
    place = (image.width - size // 2, image.height - size // 2)
    pen, font = PIL.ImageDraw.Draw(marked), PIL.ImageFont.load_default(size)
    pen.text(place, text, "white", font, anchor="rb", stroke_width=max(1, size // 10), stroke_fill="black")
    return marked


def seal(image: Image, origin: Origin, settings: MarkSettings, *, kind: str = "png") -> bytes:
    """Return the file of a result as a door sends it: marked as made by a machine, and signed where the operator can.

    Without a signature, the same pixels give the same bytes.

    Args:
        image: RGB.
        origin: who made the pixels.
        settings: of visible letters and of the signature.
        kind: one of `FORMATS`.

    Raises:
        InputError: an unknown kind, or a certificate that does not fit.
        MissingExtraError: there is a certificate, and the extra `c2pa` is not installed.
    """
    if kind not in FORMATS:
        raise InputError(f"no kind of file named {kind!r}", hint=f"known: {', '.join(FORMATS)}")
    marked = _with_letters(image, settings.visible_text) if settings.visible else image
    profile, file = image.info.get("icc_profile"), io.BytesIO()
    if kind == "png":
        marked.save(file, "PNG", icc_profile=profile, pnginfo=png_info(origin))
    else:
        marked.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=profile, xmp=xmp_packet(origin))
    if settings.c2pa_certificate is None:
        return file.getvalue()
    from mien.app.trust.credentials import sign

    return sign(file.getvalue(), f"image/{kind}", origin, settings)


def seal_clip(frames: Iterable[Image], origin: Origin, settings: MarkSettings, *, fps: float) -> bytes:
    """Return pictures as an MP4 that a door sends: marked as made by a machine, and signed where the operator can.

    Args:
        frames: RGB, of one size.
        origin: who made the pixels.
        settings: of visible letters and of the signature.
        fps: pictures a second.

    Raises:
        InputError: no pictures, or a certificate that does not fit.
        MissingExtraError: the extra `video` is not installed, or `c2pa` with a certificate.
    """
    shown = (_with_letters(frame, settings.visible_text) if settings.visible else frame for frame in frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        save_mp4(shown, path, fps=fps)
        marked = path.read_bytes() + mp4_box(origin)
    if settings.c2pa_certificate is None:
        return marked
    from mien.app.trust.credentials import sign

    return sign(marked, "video/mp4", origin, settings)
