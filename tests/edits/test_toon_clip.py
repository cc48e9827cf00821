"""Clips drawn picture by picture: where the face goes the drawing goes, and everything else stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch
from torch import Tensor

from mien.edits.toon_clip import toonify_clip
from mien.edits.toonify import Artist, ToonConfig
from mien.errors import Cancelled, InputError, NoFaceError
from mien.faces.detect import Face
from mien.report import Step
from mien.video import clip_frames, save_mp4

pytestmark = pytest.mark.usefixtures("one_thread")
FIVE = np.array([[-20.0, -15], [20, -15], [0, 5], [-14, 25], [14, 25]])
SIZE, NUM, RADIUS, RED = (200, 120), 8, 24, (200, 60, 50)


def green(img: Tensor) -> Tensor:
    return torch.tensor([-0.8, 0.8, -0.8])[:, None, None].expand_as(img)


ARTIST = Artist("green", 32, green)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A red disc that walks to the right and is gone in the last two pictures."""
    pytest.importorskip("av", reason="needs the extra video")
    frames = []
    for t in range(NUM):
        frame = PIL.Image.new("RGB", SIZE, (90, 120, 110))
        if t < NUM - 2:
            x, y = 50 + 6 * t, 60
            PIL.ImageDraw.Draw(frame).ellipse([x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS], fill=RED)
        frames.append(frame)
    save_mp4(frames, tmp_path / "clip.mp4", fps=10)
    return tmp_path / "clip.mp4"


def find(image: PIL.Image.Image) -> list[Face]:
    pixels = np.asarray(image).astype(int)
    ys, xs = np.nonzero((pixels[..., 0] > 160) & (pixels[..., 1] < 95))
    if len(xs) < 20 or 66 <= round(xs.mean()) <= 69:  # of the fourth picture, where the finder sleeps
        return []
    centre = np.array([xs.mean(), ys.mean()]) + 0.5
    return [Face(np.concatenate([centre - RADIUS, centre + RADIUS]), centre + FIVE * RADIUS / 40, 0.9)]


def frames_of(path: Path) -> np.ndarray:
    return np.stack([np.asarray(image).astype(int) for image in clip_frames(path)])


def test_the_drawing_goes_with_the_face(clip: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    num = toonify_clip(clip, tmp_path / "out.mp4", ARTIST, find=find, on_step=steps.append)
    before, after = frames_of(clip), frames_of(tmp_path / "out.mp4")
    assert num == len(after) == NUM and before.shape == after.shape
    for t in range(NUM - 2):  # the fourth picture among them, where nobody was found
        assert after[t, 60, 50 + 6 * t, 1] > after[t, 60, 50 + 6 * t, 0] + 100, t
    far = np.abs(after - before)[:, :8]
    assert np.median(far) <= 2 and np.abs(after[-1] - before[-1]).mean() < 3
    assert {step.stage for step in steps} == {"follow", "draw"}


def test_a_whole_clip_needs_no_face(clip: Path, tmp_path: Path) -> None:
    free = Artist("green", 32, green, is_free=True)
    toonify_clip(clip, tmp_path / "out.mp4", free, ToonConfig(is_whole=True), find=lambda _: [])
    assert (frames_of(tmp_path / "out.mp4")[..., 1] > 180).all()
    with pytest.raises(InputError, match="green draws faces only"):
        toonify_clip(clip, tmp_path / "no.mp4", ARTIST, ToonConfig(is_whole=True), find=find)
    with pytest.raises(NoFaceError, match="nobody is seen in clip"):
        toonify_clip(clip, tmp_path / "no.mp4", ARTIST, find=lambda _: [])
    assert not (tmp_path / "no.mp4").exists()


def test_who_stops_leaves_nothing(clip: Path, tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.stage == "draw":
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        toonify_clip(clip, tmp_path / "out.mp4", ARTIST, find=find, on_step=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
