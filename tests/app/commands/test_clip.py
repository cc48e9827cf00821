"""mien video: a clip with a tone comes out with its clock and its tone; wrong use is said before any work."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.studio import Studio
from mien.edits.video import FIRST, VIDEO_METHODS
from mien.images import resize, to_pil
from mien.inversion.tune import TuneConfig
from mien.video import clip_frames

av = pytest.importorskip("av", reason="needs the extra video")
NUM, CLOCK = 10, Fraction(1, 600)


def mien(*args: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result.stdout, result.stderr


def write_clip(frames: list[PIL.Image.Image], path: Path) -> Path:
    """Pictures at unequal times, and a tone."""
    with av.open(str(path), "w") as out:
        video, tone = out.add_stream("libx264", rate=25, options={"crf": "8"}), out.add_stream("aac", rate=44100)
        (video.width, video.height), video.pix_fmt, tone.layout = frames[0].size, "yuv420p", "mono"
        video.codec_context.time_base = CLOCK
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image).reformat(format="yuv420p")
            frame.pts, frame.time_base = 24 * i + 7 * (i // 4), CLOCK
            out.mux(video.encode(frame))
        out.mux(video.encode())
        wave = (8000 * np.sin(np.arange(22050) * 2 * np.pi * 440 / 44100)).astype(np.int16)
        samples = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        samples.sample_rate, samples.pts = 44100, 0
        out.mux(tone.encode(samples))
        out.mux(tone.encode())
    return path


def heard_and_timed(path: Path) -> tuple[list[Fraction], list[tuple[int, bytes]]]:
    with av.open(str(path)) as clip:
        times = [frame.pts * frame.time_base for frame in clip.decode(video=0)]
    with av.open(str(path)) as clip:
        return times, [(p.pts, bytes(p)) for p in clip.demux(audio=0) if p.dts is not None]


def pixels(path: Path) -> np.ndarray:
    return np.stack([np.asarray(image).astype(int) for image in clip_frames(path)])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A disc that walks inside of its 100 px; two pictures without it at last."""
    frames = []
    for t in range(NUM):
        frame = PIL.Image.new("RGB", (100, 120), (90, 120, 110))
        if t < NUM - 2:
            PIL.ImageDraw.Draw(frame).ellipse([22 + t, 36, 66 + t, 80], fill=(215, 55, 45))
        frames.append(frame)
    return write_clip(frames, tmp_path / "clip.mp4")


@pytest.mark.usefixtures("bundle")
def test_a_clip_is_edited_and_keeps_clock_and_sound(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "edited.mp4"
    said, told = mien("video", clip, "--set", "smile=2", "--method", "encoder", "--out", out)
    assert said.strip() == str(out)
    assert f"person 0: seen in {NUM - 2} of {NUM} pictures, changed in {NUM - 2}" in told
    assert heard_and_timed(out) == heard_and_timed(clip)
    change = np.abs(pixels(out) - pixels(clip)).mean(axis=(1, 2, 3))
    assert (change[:-2] > 1).all() and (change[-2:] < 1).all()


@pytest.mark.usefixtures("bundle")
def test_wrong_use_is_said_before_any_work(clip: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "o.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    for args, message in (
        ((clip, "--set", "smile=1", "--out", tmp_path / "o.avi"), "does not end in .mp4"),
        ((clip, "--set", "smile=1", "--out", clip), "would overwrite its input"),
        ((clip, "--set", "smile=1", *out, "--method", "hybrid"), "no method for clips named 'hybrid'"),
        ((clip, "--set", "joy=1", *out), "no direction named 'joy'"),
        ((clip, "--set", "smile=1", "--person", 4, *out), "clip.mp4 shows 1 person, none has number 4"),
        ((tmp_path / "no.mp4", "--set", "smile=1", *out), "there is no clip at"),
        ((tmp_path / "text.mp4", "--set", "smile=1", *out), "is no video that mien can read"),
    ):
        assert message in " ".join(mien("video", *args, code=2)[1].split()), message
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.slow
def test_generated_people_are_followed_and_edited_by_the_shipped_networks(tmp_path: Path) -> None:
    """Two people who cross keep who they are; the edit makes them smile and moves as they do."""
    studio = Studio(device="cpu")
    people = [to_pil(resize(studio.render(studio.seed_code(seed, psi=0.5)), 110))[0] for seed in (3, 11)]
    frames = []
    for t in range(10):
        frame = PIL.Image.new("RGB", (400, 140), (100, 110, 120))
        for image, x in zip(people, (12 * t, 280 - 3 * t), strict=True):
            frame.paste(image, (x, 15))
        frames.append(frame)
    source = write_clip(frames, tmp_path / "clip.mp4")
    config = replace(VIDEO_METHODS["pti"], first=replace(FIRST, num_steps=15), then=None, tune=TuneConfig(num_steps=5))
    report = studio.edit_clip(source, tmp_path / "out.mp4", {"smile": 2.0}, config=config)
    assert [one.num_seen for one in report.people] == [10, 10]
    assert all(one.jitter_px < one.raw_jitter_px for one in report.people)
    assert heard_and_timed(tmp_path / "out.mp4") == heard_and_timed(source)
    before, after = pixels(source), pixels(tmp_path / "out.mp4")
    steps = [np.abs(np.diff(clip, axis=0)).mean() for clip in (before, after)]
    assert steps[1] < 1.3 * steps[0]
    assert studio.face_net is not None
    smiles = []
    for clip in (before, after):
        crops = studio.align(PIL.Image.fromarray(clip[5].astype(np.uint8)))
        smiles.append([float(studio.face_net(crop.img).smile) for crop in crops])
    assert np.mean(smiles[1]) > np.mean(smiles[0]) + 0.1
