"""Pictures of strangers are decoded in a process of their own, with bounds on its memory, time and files.

A bomb, an endless loop or a broken decoder ends that process, and the door says that the picture cannot be read.
The child is this file, run as a program: the picture comes on its standard input; on its standard output go a line when
it is ready, a line of JSON (size, colour profile's length, or the error), the profile and the RGB pixels. What ends it
before it is ready, or kills it from outside, is our fault and not the picture's. It imports Pillow, but not PyTorch.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from typing import Any, NoReturn

import PIL.Image
from PIL.Image import Image

from mien.decode import read_photo
from mien.errors import InputError, MienError, UnsupportedFileError

__all__ = ["NoDecoderError", "decode_apart"]

READY = b"ready"
MAX_LINE, MAX_PROFILE = 1 << 12, 4 << 20
PATIENCE = 3.0  # times the seconds of computing: on a busy machine a process waits more than it computes
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)  # no picture sends these
NEEDED = ("PATH", "PYTHONPATH", "PYTHONHOME", "SYSTEMROOT", "LD_LIBRARY_PATH")
HINT = "save it as JPEG or PNG and send it again"

logger = logging.getLogger(__name__)


class NoDecoderError(MienError):
    """A picture was not decoded, and that is not its fault: another time may do better."""


def decode_apart(data: bytes, *, max_pixels: int, max_side_px: int, timeout_s: float, memory_mb: int) -> Image:
    """Decode a picture in a process of its own.

    A decoder that computes longer than it may has met a bad picture; one that only waits stands on a busy machine. One
    that dies is tried once more: a picture that kills decoders does so again, an accident does not.

    Args:
        data: bytes of a file.
        max_pixels: width times height; more is refused before it is decoded.
        max_side_px: longest side.
        timeout_s: of computing; all of it may take `PATIENCE` times as long.
        memory_mb: address space beyond what the decoder needs before it has seen the file.

    Returns:
        RGB, upright; its colour profile in `info`, nothing else that came with it.

    Raises:
        UnsupportedFileError: no picture, damaged, too large, or no decoder survives it.
        NoDecoderError: none could be started, the machine is too busy, or somebody killed it.
    """
    patience_s = PATIENCE * timeout_s
    limits = json.dumps([max_pixels, max_side_px, timeout_s, patience_s, memory_mb])
    answer, code = _decode(data, limits, patience_s)
    if not answer and code != -signal.SIGXCPU:
        logger.warning("a decoder ended with %d; it is tried again", code)
        answer, code = _decode(data, limits, patience_s)
    return _picture(answer, code, max_pixels)


def _decode(data: bytes, limits: str, patience_s: float) -> tuple[bytes, int]:
    """Return what a decoder says, nothing where it died of the picture, and how it ended."""
    command = [sys.executable, "-P", "-c", "from mien.app.trust.sandbox import main; main()", limits]
    try:
        ended = subprocess.run(
            command, input=data, capture_output=True, timeout=patience_s, env=_environment(), check=False
        )
    except subprocess.TimeoutExpired:
        logger.error("a decoder was not done after %.0f s", patience_s)
        message = "pictures cannot be decoded now: the machine is too busy"
        raise NoDecoderError(message, hint="try again later") from None
    except (OSError, MemoryError) as err:
        message = "pictures cannot be decoded now: the machine is out of memory"
        raise NoDecoderError(message, hint="try again later") from err
    ready, _, answer = ended.stdout.partition(b"\n")
    if ready != READY or -ended.returncode in FROM_OUTSIDE:
        tail = ended.stderr.decode(errors="replace")[-500:] if ready != READY else ""
        logger.error("a decoder ended with %d before it was done %s", ended.returncode, tail)
        raise NoDecoderError("pictures cannot be decoded now", hint="try again later")
    return answer, ended.returncode


def _environment() -> dict[str, str]:
    """Return no secret of the server, and no more threads than one."""
    kept = {name: os.environ[name] for name in NEEDED if name in os.environ}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _picture(answer: bytes, code: int, max_pixels: int) -> Image:
    """Believe nothing of what a child says that has met a stranger's file."""
    line, *_ = answer[:MAX_LINE].partition(b"\n")
    try:
        told: Any = json.loads(line)
    except ValueError:
        what = "took too long" if code == -signal.SIGXCPU else "did not survive it"
        raise UnsupportedFileError(f"the picture cannot be decoded: the decoder {what}", hint=HINT) from None
    if isinstance(told, dict) and isinstance(told.get("error"), str):
        raise UnsupportedFileError(told["error"][:300], hint=str(told.get("hint", ""))[:300])
    try:
        width, height, profile_size = (int(told[name]) for name in ("width", "height", "profile"))
        start = len(line) + 1
        pixels = memoryview(answer)[start + profile_size :]
        if width < 1 or height < 1 or width * height > max_pixels or not 0 <= profile_size <= MAX_PROFILE:
            raise ValueError("a size that was not allowed")
        image = PIL.Image.frombytes("RGB", (width, height), pixels)
    except (ValueError, TypeError, KeyError):
        raise UnsupportedFileError("the picture cannot be decoded: the decoder lost its way", hint=HINT) from None
    if profile_size:
        image.info["icc_profile"] = answer[start : start + profile_size]
    return image


# ---- The child -------------------------------------------------------------------------------------------------------


def _bound(timeout_s: float, patience_s: float, memory_mb: int) -> None:
    """Give up what a decoder does not need: memory, time, files, dumps."""
    try:
        import resource
    except ImportError:  # Windows: time is bounded by the parent alone
        return
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        taken = 1 << 30
    bounds = {
        resource.RLIMIT_AS: taken + (memory_mb << 20),
        resource.RLIMIT_CPU: max(1, round(timeout_s)),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for kind, bound in bounds.items():
        hard = resource.getrlimit(kind)[1]
        least = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (least, hard if kind == resource.RLIMIT_CPU else least))  # XCPU is soft, KILL is hard
    signal.alarm(round(patience_s) + 5)  # by then nobody waits any more


def _answer(told: dict[str, object], *parts: bytes) -> NoReturn:
    out = sys.stdout.buffer
    out.write(json.dumps(told).encode() + b"\n")
    for part in parts:
        out.write(part)
    out.flush()
    os._exit(0)


def main() -> NoReturn:
    """Decode the picture on standard input within the bounds of the first argument."""
    max_pixels, max_side_px, timeout_s, patience_s, memory_mb = json.loads(sys.argv[1])
    PIL.Image.init()
    sys.stdout.buffer.write(READY + b"\n")
    sys.stdout.buffer.flush()
    data = sys.stdin.buffer.read()
    _bound(timeout_s, patience_s, memory_mb)
    try:
        image = read_photo(data, max_pixels=max_pixels, name="the file")
        if max(image.size) > max_side_px:
            size = f"{image.width}x{image.height} px"
            raise UnsupportedFileError(f"the picture is too large: {size}", hint="shrink it")
        profile = image.info.get("icc_profile") or b""
        profile = profile if len(profile) <= MAX_PROFILE else b""
        _answer({"width": image.width, "height": image.height, "profile": len(profile)}, profile, image.tobytes())
    except InputError as err:
        _answer({"error": err.message, "hint": err.hint.removesuffix(", or raise max_pixels")})
    except MienError as err:
        _answer({"error": err.message, "hint": HINT})
    except MemoryError:
        _answer({"error": "the picture needs too much memory", "hint": "shrink it"})
