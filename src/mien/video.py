"""Pictures to a video: H.264 in an MP4 that every browser and phone plays.

Source: ITU-T H.264; written by PyAV, which brings FFmpeg along (the extra `video`).
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from PIL.Image import Image

from mien.atomic import replacing
from mien.errors import InputError, MissingExtraError

__all__ = ["save_mp4"]

CRF = "16"  # of x264: 0 is lossless, 18 looks it
BT709, LIMITED = 1, 1  # colours of HD video in the numbers of ITU-T H.273; untagged, each player guesses


def save_mp4(frames: Iterable[Image], path: str | Path, *, fps: float = 30.0) -> None:
    """Write RGB pictures of one size as a video, whole or not at all; they are taken one after another.

    Args:
        frames: at least one; an odd side loses its last row or column, as the format wants even ones.
        path: file to make or replace.
        fps: pictures a second.

    Raises:
        InputError: no pictures, unequal sizes, or an impossible rate.
        MissingExtraError: the extra `video` is not installed.
        MienError: the file cannot be written.
    """
    try:
        import av
        from av.video.reformatter import ColorRange, Colorspace
    except ImportError as err:
        raise MissingExtraError("writing videos needs PyAV", hint="pip install 'mien[video]'") from err
    if not 0 < fps <= 1000:
        raise InputError(f"fps must be above 0 and at most 1000, got {fps}")
    size: tuple[int, int] | None = None
    with replacing(Path(path)) as part, av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": CRF})
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        for frame in frames:
            if size is None:
                size = frame.size
                stream.width, stream.height = (side - side % 2 for side in size)
            if frame.size != size:
                raise InputError(f"the pictures of a video must have one size, got {size} and {frame.size}")
            cut = frame.crop((0, 0, stream.width, stream.height))
            picture = av.VideoFrame.from_image(cut).reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            out.mux(stream.encode(picture))
        if size is None:
            raise InputError("a video needs at least one picture")
        out.mux(stream.encode())
