"""Videos: the frames that went in come out, whole files or none, clear errors."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mien.errors import InputError, MissingExtraError
from mien.video import save_mp4


def frames(num: int, size: tuple[int, int] = (32, 24)) -> list[PIL.Image.Image]:
    return [PIL.Image.new("RGB", size, (40 + 10 * i, 120, 200 - 10 * i)) for i in range(num)]


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
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match="needs PyAV") as caught:
        save_mp4(frames(1), tmp_path / "a.mp4")
    assert "mien[video]" in caught.value.hint
    assert not list(tmp_path.iterdir())
