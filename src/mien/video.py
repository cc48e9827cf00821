"""Pictures to a video, and a video's pictures changed one by one: H.264 that every browser and phone plays.

A clip is never held in memory. Whoever changes one gets its pictures upright and in order; what comes out has as many,
of the same size and at the same times, and the sound packet by packet as it was. Pictures that are not changed go
to the encoder as they were decoded, without a way over RGB.

Source: ITU-T H.264; read and written by PyAV, which brings FFmpeg along (the extra `video`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from PIL.Image import Image

from mien.atomic import replacing
from mien.errors import InputError, MissingExtraError, UnsupportedFileError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer, OutputContainer

__all__ = ["CLIP_SUFFIXES", "MAX_FRAME_PIXELS", "Clip", "clip_frames", "clip_info", "rewrite_clip", "save_mp4"]

CRF = "16"  # of x264: 0 is lossless, 18 looks it
BT709, LIMITED = 1, 1  # colours of HD video in the numbers of ITU-T H.273; untagged, each player guesses
RGB = 0  # of the same numbers: no YUV at all

MAX_FRAME_PIXELS = 36_000_000
"""Largest picture of a clip that is decoded, width times height: 8K passes."""

CLIP_SUFFIXES = {".mp4": "mp4", ".mov": "mov"}
"""Suffix of a clip that is written => name of its format; of those that keep any clock exactly."""

# Formats that may be read: files that hold everything themselves, no playlists, no still pictures.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg,mxf"
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMATS}


@dataclass(frozen=True)
class Clip:
    """What a clip says of itself."""

    size: tuple[int, int]  # width and height as stored, px
    num_frames: int  # 0 where the file does not say
    fps: float  # on average
    has_sound: bool


def _av(what: str) -> Any:
    try:
        import av
    except ImportError as err:
        raise MissingExtraError(f"{what} videos needs PyAV", hint="pip install 'mien[video]'") from err
    return av


# ----- reading


@contextmanager
def _reading(path: Path) -> Iterator[InputContainer]:
    """Open a clip; what goes wrong while it is read is the file's fault and said so."""
    av = _av("reading")
    hint = "give a clip as phones and cameras make it, say an MP4"
    if not path.is_file():
        raise InputError(f"there is no clip at {path}", hint="check the name")
    try:
        with av.open(str(path), options=OPTIONS) as container:
            if not container.streams.video:
                raise UnsupportedFileError(f"{path} has no pictures", hint=hint)
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_FRAME_PIXELS:
                size = f"{stream.width}x{stream.height} px"
                raise UnsupportedFileError(f"the pictures of {path} are too large: {size}", hint="shrink the clip")
            stream.thread_type = "AUTO"
            yield container
    except av.error.FFmpegError as err:
        raise UnsupportedFileError(f"{path} is no video that mien can read: {err.strerror}", hint=hint) from err


def clip_info(path: Path) -> Clip:
    """Look at a clip without decoding it.

    Raises:
        InputError: there is no such file.
        UnsupportedFileError: it is no video, or its pictures are too large.
        MissingExtraError: the extra `video` is not installed.
    """
    with _reading(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        num_frames = stream.frames
        if not num_frames and container.duration:
            num_frames = round(container.duration / 1_000_000 * rate)
        return Clip((stream.width, stream.height), num_frames, float(rate), bool(container.streams.audio))


def _quarter_turns(frame: VideoFrame) -> int:
    """How often a picture must be turned counter-clockwise by 90 degrees to stand upright."""
    return round(frame.rotation / 90) % 4


def _resampling() -> int:
    """How colours are halved and doubled: so that the way to RGB and back changes nothing but the last bit.

    FFmpeg's default is a level too dark and blurs colours a little more on each way.
    """
    from av.video.reformatter import Interpolation as How

    return How.AREA | How.ACCURATE_RND | How.FULL_CHR_H_INT | How.FULL_CHR_H_INP


def _upright(frame: VideoFrame) -> Image:
    """Turn a decoded picture into RGB as it is meant to be seen."""
    pixels = frame.reformat(format="rgb24", interpolation=_resampling()).to_ndarray()
    return PIL.Image.fromarray(np.rot90(pixels, _quarter_turns(frame)).copy())


def clip_frames(path: Path) -> Iterator[Image]:
    """Yield the pictures of a clip in order, upright, RGB.

    Raises:
        InputError: there is no such file.
        UnsupportedFileError: it is no video, its pictures are too large, or it is damaged.
        MissingExtraError: the extra `video` is not installed.
    """
    with _reading(path) as container:
        for frame in container.decode(video=0):
            yield _upright(frame)


# ----- writing


def _encoder(out: OutputContainer, size: tuple[int, int], rate: Fraction, colours: tuple[int, int, int, int]) -> Any:
    """Add an H.264 stream of pictures of `size`, tagged with colour space, primaries, transfer and range."""
    stream: Any = out.add_stream("libx264", rate=rate, options={"crf": CRF})
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"  # halved colours need even sides
    context = stream.codec_context
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = colours
    return stream


def save_mp4(frames: Iterable[Image], path: str | Path, *, fps: float = 30.0) -> None:
    """Write RGB pictures of one size as a video, whole or not at all; they are taken one after another.

    Args:
        frames: at least one; an odd side loses its last row or column, as most players want even ones.
        path: file to make or replace.
        fps: pictures a second.

    Raises:
        InputError: no pictures, unequal sizes, or an impossible rate.
        MissingExtraError: the extra `video` is not installed.
        MienError: the file cannot be written.
    """
    av = _av("writing")
    if not 0 < fps <= 1000:
        raise InputError(f"fps must be above 0 and at most 1000, got {fps}")
    size: tuple[int, int] | None = None
    rate = Fraction(fps).limit_denominator(1001)
    with replacing(Path(path)) as part, av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as out:
        for frame in frames:
            if size is None:
                size = frame.size
                even = (size[0] - size[0] % 2, size[1] - size[1] % 2)
                stream = _encoder(out, even, rate, (BT709, BT709, BT709, LIMITED))
            if frame.size != size:
                raise InputError(f"the pictures of a video must have one size, got {size} and {frame.size}")
            out.mux(stream.encode(_to_yuv(frame.crop((0, 0, *even)), stream)))
        if size is None:
            raise InputError("a video needs at least one picture")
        out.mux(stream.encode())


def _to_yuv(image: Image, stream: Any) -> VideoFrame:
    """Turn a picture into what an encoder takes, in the colours that its stream is tagged with."""
    from av import VideoFrame

    context = stream.codec_context
    return VideoFrame.from_image(image).reformat(
        format=stream.pix_fmt,
        dst_colorspace=context.colorspace,
        dst_color_range=context.color_range,
        interpolation=_resampling(),
    )


Change = Callable[[int, Image], Image | None]
"""Number of a picture and the picture to what takes its place, of the same size; None leaves it as it was."""


class _Writer:
    """The clip that is made of another: one stream of pictures, and the other's sound."""

    def __init__(self, out: OutputContainer, source: InputContainer, change: Change) -> None:
        self.out, self.change, self.source = out, change, source.streams.video[0]
        self.sounds = {sound.index: self._sound(sound) for sound in source.streams.audio}
        self.stream: Any = None
        self.size: tuple[int, int] | None = None
        self.num, self.last_pts = 0, -1
        self.early: list[Any] = []  # packets of sound before the first picture, whose stream must be there first

    def _sound(self, sound: Any) -> tuple[Any, bool]:
        """The stream for a sound, and whether its packets fit as they are; else they are encoded again as AAC."""
        if sound.codec_context.name in self.out.supported_codecs:
            return self.out.add_stream_from_template(sound), True
        return self.out.add_stream("aac", rate=sound.codec_context.sample_rate), False

    def _start(self, frame: VideoFrame, size: tuple[int, int]) -> None:
        """Begin the stream of pictures as the first one of them is: its size, its colours, its clock."""
        is_rgb = frame.format.is_rgb or frame.format.name == "pal8"
        known = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
        rate = self.source.average_rate or self.source.guessed_rate or Fraction(25)
        self.size = size
        self.stream = _encoder(self.out, size, rate, (BT709, BT709, BT709, LIMITED) if is_rgb else known)
        self.stream.codec_context.time_base = self.source.time_base
        early, self.early = self.early, []
        for packet in early:
            self.sound(packet)

    def picture(self, frame: VideoFrame) -> None:
        """Change one picture and write it at its own time."""
        image = _upright(frame)
        if self.stream is None:
            self._start(frame, image.size)
        if image.size != self.size:
            raise InputError(f"the pictures of the clip change their size from {self.size} to {image.size}")
        changed = self.change(self.num, image)
        if changed is not None and changed.size != self.size:
            raise InputError(f"a changed picture is {changed.size}, not {self.size}")
        if changed is None and _quarter_turns(frame) == 0 and not frame.format.is_rgb:
            new = frame.reformat(format=self.stream.pix_fmt, interpolation=_resampling())
        else:
            new = _to_yuv(image if changed is None else changed, self.stream)
        pts = self.last_pts + 1 if frame.pts is None else max(frame.pts, self.last_pts + 1)  # files that do not say
        new.pts, new.time_base, new.pict_type = pts, self.source.time_base, 0
        self.num, self.last_pts = self.num + 1, pts
        self.out.mux(self.stream.encode(new))

    def sound(self, packet: Any) -> None:
        """Write a packet of sound as it is, or what it says in another codec."""
        if self.stream is None:
            self.early.append(packet)
            return
        stream, is_copied = self.sounds[packet.stream.index]
        if is_copied:
            if packet.dts is not None:
                packet.stream = stream
                self.out.mux(packet)
            return
        for samples in packet.decode():
            self.out.mux(stream.encode(samples))

    def finish(self) -> None:
        """Write what the encoders hold back."""
        if self.stream is None:
            raise InputError("the clip has not a single picture", hint="give another clip")
        self.out.mux(self.stream.encode())
        for stream, is_copied in self.sounds.values():
            if not is_copied:
                self.out.mux(stream.encode())


def rewrite_clip(source: Path, path: Path, change: Change) -> int:
    """Write a clip again with other pictures: as many, of the same size, at the same times, and with its sound.

    Args:
        source: any clip.
        path: file to make or replace, whole or not at all; its suffix one of `CLIP_SUFFIXES`.
        change: is asked for every picture in order.

    Returns:
        The number of pictures.

    Raises:
        InputError: no such file, no pictures, pictures of several sizes, or an unknown suffix.
        UnsupportedFileError: it is no video, its pictures are too large, or it is damaged.
        MissingExtraError: the extra `video` is not installed.
        MienError: the file cannot be written.
    """
    av = _av("writing")
    form = CLIP_SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise InputError(f"{path} does not end in {', '.join(CLIP_SUFFIXES)}", hint=f"say {path.with_suffix('.mp4')}")
    with (
        _reading(source) as container,
        replacing(path) as part,
        av.open(str(part), "w", format=form, options={"movflags": "faststart"}) as out,
    ):
        writer = _Writer(out, container, change)
        packets: Iterator[Any] = container.demux(writer.source, *container.streams.audio)
        for packet in packets:
            if packet.stream.type == "audio":
                writer.sound(packet)
                continue
            for frame in packet.decode():
                writer.picture(frame)
        writer.finish()
        return writer.num
