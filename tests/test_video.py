"""Videos: the frames that went in come out, at their times and with their sound; whole files or none, clear errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mien.errors import InputError, MissingExtraError, UnsupportedFileError
from mien.images import save_png
from mien.video import clip_frames, clip_info, rewrite_clip, save_mp4

CLOCK = Fraction(1, 600)


def frames(num: int, size: tuple[int, int] = (32, 24)) -> list[PIL.Image.Image]:
    return [PIL.Image.new("RGB", size, (40 + 10 * i, 120, 200 - 10 * i)) for i in range(num)]


def write_clip(path: Path, *, num: int = 12, form: str = "mp4", sound: str = "aac") -> Path:
    """A clip whose pictures come at unequal times, with a second of a tone."""
    av = pytest.importorskip("av", reason="needs the extra video")
    with av.open(str(path), "w", format=form) as out:
        video, tone = out.add_stream("libx264", rate=25, options={"crf": "10"}), out.add_stream(sound, rate=44100)
        video.width, video.height, video.pix_fmt, tone.layout = 32, 24, "yuv420p", "mono"
        video.codec_context.time_base = CLOCK
        for i, image in enumerate(frames(num)):
            frame = av.VideoFrame.from_image(image).reformat(format="yuv420p")
            frame.pts, frame.time_base = 24 * i + 6 * (i // 3) * (form == "mp4"), CLOCK
            out.mux(video.encode(frame))
        out.mux(video.encode())
        wave = (8000 * np.sin(np.arange(44100) * 2 * np.pi * 440 / 44100)).astype(np.int16)
        samples = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        samples.sample_rate, samples.pts = 44100, 0
        out.mux(tone.encode(samples))
        out.mux(tone.encode())
    return path


def read_clip(path: Path) -> tuple[list[Fraction], list[np.ndarray], list[tuple[Fraction, bytes]]]:
    """Times in seconds, pictures, and packets of sound with their times."""
    import av

    with av.open(str(path)) as clip:
        decoded = list(clip.decode(video=0))
        times = [frame.pts * frame.time_base for frame in decoded]
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in decoded]
    with av.open(str(path)) as clip:
        packets = [(p.pts * p.time_base, bytes(p)) for p in clip.demux(audio=0) if p.dts is not None]
    return times, pictures, packets


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra video")
    path = tmp_path / "new" / "a.mp4"
    save_mp4(iter(frames(10)), path, fps=12.5)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (32, 24, 12.5)
        context = stream.codec_context
        assert (context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
    assert len(pictures) == 10
    for picture, frame in zip(pictures, frames(10), strict=True):
        assert np.abs(picture.astype(int) - np.asarray(frame)).mean() < 3


def test_an_odd_side_loses_its_last_row(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra video")
    save_mp4(frames(2, (33, 25)), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (32, 24)


def test_a_failure_leaves_the_old_video(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=r"one size, got \(32, 24\) and \(10, 10\)"):
        save_mp4([*frames(3), *frames(1, (10, 10))], path)
    with pytest.raises(InputError, match="at least one picture"):
        save_mp4([], path)
    with pytest.raises(InputError, match="fps must be above 0"):
        save_mp4(frames(1), path, fps=0)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_the_extra_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for work in (lambda: save_mp4(frames(1), tmp_path / "a.mp4"), lambda: clip_info(tmp_path / "a.mp4")):
        with pytest.raises(MissingExtraError) as caught:
            work()
        assert "mien[video]" in caught.value.hint


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_clip_keeps_its_clock_and_its_sound(tmp_path: Path, suffix: str) -> None:
    source = write_clip(tmp_path / "a.mp4")
    seen = []

    def darken(i: int, image: PIL.Image.Image) -> PIL.Image.Image | None:
        seen.append(i)
        return PIL.Image.new("RGB", image.size) if i == 5 else None

    out = tmp_path / "out" / f"b{suffix}"
    assert rewrite_clip(source, out, darken) == 12
    assert seen == list(range(12))
    times, pictures, packets = read_clip(source)
    new_times, new_pictures, new_packets = read_clip(out)
    assert new_times == times and len({b - a for a, b in pairwise(times)}) == 2
    assert new_packets == packets and len(packets) > 40
    for i, (old, new) in enumerate(zip(pictures, new_pictures, strict=True)):
        assert np.abs(new - (0 if i == 5 else old)).mean() < 2, i


def test_the_way_over_rgb_and_back_changes_no_colour(tmp_path: Path) -> None:
    """Patches of every colour, neither darker nor paler."""
    pytest.importorskip("av", reason="needs the extra video")
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    patches = PIL.Image.fromarray(colours.repeat(8, 0).repeat(8, 1))
    save_mp4([patches] * 2, tmp_path / "a.mp4")
    rewrite_clip(tmp_path / "a.mp4", tmp_path / "b.mp4", lambda _i, image: image.copy())
    for path in ("a.mp4", "b.mp4"):
        error = np.asarray(next(clip_frames(tmp_path / path))).astype(int)[4::8, 4::8] - colours
        assert np.abs(error.mean((0, 1))).max() < 0.8, path
        assert np.abs(error).mean() < 3, path


def test_sound_that_the_format_cannot_hold_is_encoded_again(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra video")
    source = write_clip(tmp_path / "a.avi", form="avi", sound="pcm_u8")
    rewrite_clip(source, tmp_path / "b.mp4", lambda _i, _image: None)
    assert read_clip(tmp_path / "b.mp4")[0] == read_clip(source)[0]
    with av.open(str(tmp_path / "b.mp4")) as clip:
        assert clip.streams.audio[0].codec_context.name == "aac"
        assert float(clip.streams.audio[0].duration * clip.streams.audio[0].time_base) == pytest.approx(1, abs=0.06)


def test_odd_sides_and_animations_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    first, *more = frames(3, (33, 25))
    first.save(tmp_path / "a.gif", save_all=True, append_images=more, duration=100)
    rewrite_clip(tmp_path / "a.gif", tmp_path / "b.mp4", lambda _i, _image: None)
    info = clip_info(tmp_path / "b.mp4")
    assert (info.size, info.num_frames, info.has_sound) == ((33, 25), 3, False)
    for image, expected in zip(clip_frames(tmp_path / "b.mp4"), frames(3, (33, 25)), strict=True):
        assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).mean() < 4


def test_a_phone_s_clip_stands_upright(tmp_path: Path) -> None:
    """The file is told that it lies on its side, as phones do: by the matrix of its track."""
    pytest.importorskip("av", reason="needs the extra video")
    marked = PIL.Image.new("RGB", (32, 24), "black")
    marked.paste("white", (0, 0, 8, 24))  # left edge
    save_mp4([marked] * 3, tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    one, zero, last = b"\x00\x01\x00\x00", b"\x00" * 4, b"\x40\x00\x00\x00"
    at = data.index(one + zero * 3 + one + zero * 3 + last, data.index(b"tkhd"))
    turned = zero + one + zero + b"\xff\xff\x00\x00" + zero * 4 + last  # clockwise by 90 degrees
    (tmp_path / "a.mp4").write_bytes(data[:at] + turned + data[at + 36 :])
    for make in (None, "copy"):
        path = tmp_path / "a.mp4"
        if make:
            path = tmp_path / "b.mp4"
            rewrite_clip(tmp_path / "a.mp4", path, lambda _i, _image: None)
        image = next(clip_frames(path))
        assert image.size == (24, 32)
        assert np.asarray(image)[2].mean() > 200 and np.asarray(image)[-2].mean() < 50  # left went to the top


def not_there(folder: Path) -> Path:
    return folder / "no.mp4"


def a_text(folder: Path) -> Path:
    (folder / "a.mp4").write_text("no video")
    return folder / "a.mp4"


def a_picture(folder: Path) -> Path:
    save_png(frames(1)[0], folder / "a.png")
    return folder / "a.png"


def a_playlist(folder: Path) -> Path:
    (folder / "a.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    return folder / "a.m3u8"


def sound_alone(folder: Path) -> Path:
    import av

    with av.open(str(folder / "a.mp4"), "w") as out:
        stream: Any = out.add_stream("aac", rate=44100)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        samples.sample_rate = 44100
        out.mux(stream.encode(samples))
        out.mux(stream.encode())
    return folder / "a.mp4"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (not_there, "there is no clip"),
        (a_text, "no video that mien can read"),
        (a_picture, "no video that mien can read"),
        (a_playlist, "no video that mien can read"),
        (sound_alone, "has no pictures"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    source = make(tmp_path)
    with pytest.raises(InputError, match=message):
        rewrite_clip(source, tmp_path / "out.mp4", lambda _i, _image: None)
    assert not (tmp_path / "out.mp4").exists()


def test_absurd_sizes_and_wrong_changes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_clip(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"does not end in \.mp4, \.mov"):
        rewrite_clip(source, tmp_path / "b.webm", lambda _i, _image: None)
    with pytest.raises(InputError, match=r"a changed picture is \(10, 10\), not \(32, 24\)"):
        rewrite_clip(source, tmp_path / "b.mp4", lambda _i, _image: PIL.Image.new("RGB", (10, 10)))
    monkeypatch.setattr("mien.video.MAX_FRAME_PIXELS", 700)
    with pytest.raises(UnsupportedFileError, match="too large: 32x24 px"):
        clip_info(source)
    assert list(tmp_path.iterdir()) == [source]


def test_a_clip_that_is_cut_short_ends_in_one_error(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4")
    data = source.read_bytes()
    for size in (0, 40, len(data) // 2):
        source.write_bytes(data[:size])
        with pytest.raises(UnsupportedFileError):
            rewrite_clip(source, tmp_path / "b.mp4", lambda _i, _image: None)
        assert list(tmp_path.iterdir()) == [source]
