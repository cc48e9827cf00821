"""mien toonify and mien train pix2pix: from pairs to drawn photos, by a student, a U-Net and an adapted generator."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from mien.app.studio import Studio
from mien.edits.toonify import ToonConfig
from mien.nets.pix2pix import UnetGenerator
from mien.nets.student import Student
from mien.video import clip_frames, save_mp4
from mien.weights.load import load_generator, read_recipe, save_generator, save_net

from ..conftest import draw_photo, pixels, printed

pytestmark = pytest.mark.usefixtures("bundle")


def mien(*args: object, code: int = 0) -> str:
    return " ".join(printed(*args, code=code).split())


@pytest.fixture
def student(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = Student(widths=(4, 4), num_blocks=(0, 0), img_resolution=32)
    torch.nn.init.normal_(net.last.bias)  # type: ignore[arg-type]
    save_net(net, tmp_path / "student.safetensors")
    return tmp_path / "student.safetensors"


def write_related(path: Path, share: float) -> Path:
    torch.manual_seed(1)
    G: Any = load_generator("faces-64")
    for tensor in G.synthesis.parameters():
        tensor.mul_(1 - share).add_(share * torch.randn_like(tensor))
    save_generator(G, path)
    return path


def test_every_face_is_drawn_where_it_is(student: Path, photo: Path, tmp_path: Path) -> None:
    made = mien("toonify", photo, "--style", student, "--outdir", tmp_path / "out")
    assert made == str(tmp_path / "out" / "two.png")
    changed = (pixels(Path(made)) != pixels(photo)).any(2)
    assert changed[50:70, 40:60].all() and changed[50:70, 140:160].all() and not changed[0, 0]
    one = mien("toonify", photo, "--style", student, "--outdir", tmp_path / "one", "--face", 0)
    changed = (pixels(Path(one)) != pixels(photo)).any(2)
    assert not changed[:, :40].any() and changed[50:70, 140:160].all()  # face 0 is the larger one, on the right


def test_crops_aligned_pictures_and_folders(student: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = mien("toonify", photo.parent, "--style", student, "--outdir", out, "--crop").split()
    assert made == [str(out / "two_0.png"), str(out / "two_1.png")]
    assert pixels(out / "two_0.png").shape == (32, 32, 3)
    made = mien("toonify", out / "two_0.png", "--style", student, "--outdir", tmp_path / "again", "--aligned").split()
    assert made == [str(tmp_path / "again" / "two_0.png")]
    made = mien("toonify", photo, "--style", student, "--outdir", tmp_path / "same", "--crop", "--strength", 0).split()
    crop = Studio("faces-64").align(PIL.Image.open(photo).convert("RGB"), size_px=32)[1]
    assert np.abs(pixels(Path(made[1])) - np.asarray(crop.image).astype(int)).max() <= 1


def test_whole_pictures_with_and_without_faces(student: Path, photo: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    PIL.Image.new("RGB", (120, 90), (20, 60, 90)).save(empty)
    made = mien("toonify", photo, empty, "--style", student, "--outdir", tmp_path / "out", "--whole-picture").split()
    for source, path in zip((photo, empty), made, strict=True):
        assert (pixels(Path(path)) != pixels(source)).any(2).mean() > 0.95


def test_an_adapted_generator_draws_by_codes(photo: Path, tmp_path: Path) -> None:
    art = write_related(tmp_path / "art.safetensors", 0.2)
    made = mien("toonify", photo, "--style", art, "--outdir", tmp_path / "out", "--crop").split()
    studio = Studio("faces-64")
    img = torch.cat([c.img for c in studio.align(PIL.Image.open(photo).convert("RGB"))])
    (code, *_) = studio.invert(img, method="encoder")
    plain = code.ws.mean(dim=0).expand_as(code.ws).lerp(studio.G.w_avg, 0.2)  # in W, a fifth of the way to the mean
    expected = studio.decode(code.with_ws(plain), load_generator(art)).clamp(-1, 1)
    shown = torch.from_numpy(pixels(Path(made[0]))).permute(2, 0, 1)[None] / 127.5 - 1
    assert (shown - expected).abs().max() < 0.02
    stranger = write_related(tmp_path / "stranger.safetensors", 1.0)
    assert "means nothing" in mien("toonify", photo, "--style", stranger, "--outdir", tmp_path / "no", code=2)
    said = mien("toonify", photo, "--style", art, "--outdir", tmp_path / "no", "--whole-picture", code=3)
    assert "art draws faces only" in said


def test_a_unet_takes_faces_of_the_side_it_was_trained_on(photo: Path, tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    save_net(UnetGenerator(ngf=2, num_downs=4), path, provenance={"img_resolution": 32})
    made = mien("toonify", photo, "--style", path, "--outdir", tmp_path / "out", "--crop").split()
    assert pixels(Path(made[0])).shape == (32, 32, 3)
    save_net(UnetGenerator(1, 3, ngf=2, num_downs=4), path)
    said = mien("toonify", photo, "--style", path, "--outdir", tmp_path / "out", code=2)
    assert "does not go from colour pictures" in said


def test_an_exported_student_draws_the_same(student: Path, photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    folder = tmp_path / "exported"
    mien("export", student, "--out", folder)
    for style, out in ((student, "a"), (folder, "b")):
        mien("toonify", photo, "--style", style, "--outdir", tmp_path / out)
    assert np.abs(pixels(tmp_path / "a" / "two.png") - pixels(tmp_path / "b" / "two.png")).max() <= 1
    said = mien("toonify", photo, "--style", folder, "--outdir", tmp_path / "c", "--whole-picture", code=3)
    assert "student draws faces only" in said


def test_wrong_use(student: Path, photo: Path, bundle: Path, tmp_path: Path) -> None:
    run = ("toonify", photo, "--outdir", tmp_path / "out", "--style")
    assert "no weights at nobody" in mien(*run, "nobody", code=2)
    assert "holds a Detector, which does not draw faces" in mien(*run, "detector", code=2)
    assert "--whole-picture has no meaning" in mien(*run, student, "--whole-picture", "--crop", code=2)
    assert "--face 0 has no meaning" in mien(*run, student, "--aligned", "--face", 0, code=2)
    assert "no aligned crop" in mien(*run, student, "--aligned", code=3)
    assert "none has number 7" in mien(*run, student, "--face", 7, code=3)
    assert not (tmp_path / "out").exists()
    empty = tmp_path / "none"
    empty.mkdir()
    assert "no photos in" in mien("toonify", empty, "--outdir", tmp_path / "out", "--style", student, code=2)
    draw_photo(()).save(tmp_path / "nobody.png")
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    several = (photo, tmp_path / "nobody.png", tmp_path / "broken.jpg")
    said = mien("toonify", *several, "--outdir", tmp_path / "out", "--style", student, code=3)
    assert "no face found in nobody.png" in said and "2 of 3 inputs failed" in said
    assert (tmp_path / "out" / "two.png").is_file()
    said = mien("toonify", photo, "--outdir", photo.parent, "--style", student, code=3)
    assert "would overwrite its input" in said


def test_ten_faces_in_one_call(student: Path) -> None:
    studio = Studio("faces-64")
    photo, artist = draw_photo(tuple(20 + i for i in range(10))), studio.artist(str(student))
    began = time.perf_counter()
    made = studio.toonify(photo, artist, ToonConfig())
    assert time.perf_counter() - began < 10  # seconds, on a busy machine
    changed = (np.asarray(made).astype(int) != np.asarray(photo).astype(int)).any(2)
    assert all(changed[55:65, 100 * i + 45 : 100 * i + 55].all() for i in range(10))


def test_from_pairs_to_a_drawn_photo(photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    art, pairs, run = write_related(tmp_path / "art.safetensors", 0.2), tmp_path / "pairs", tmp_path / "run"
    mien("pairs", "make", "--target", art, "--num", 12, "--val-share", 0.3, "--no-filter", "--outdir", pairs)
    chosen = ("kimg=0.008", "batch_size=4", "widths=4,6,8", "num_blocks=0,0,0", "ndf=4", "num_layers=1")
    settings = [
        word for setting in (*chosen, "perceptual_weight=0", "identity_weight=0") for word in ("--set", setting)
    ]
    made = Path(mien("train", "pix2pix", "--pairs", pairs, "--outdir", run, *settings))
    assert made == run / "student.safetensors"
    facts = read_recipe(made).provenance
    assert facts["img_resolution"] == 16 and facts["kimg"] == 0.008
    report = json.loads((pairs / "report.json").read_text())
    assert facts["made_by"] == report["weights"] and facts["pictures"] == report["kept"]["train"]
    assert list(run.glob("samples-*.png"))
    drawn = mien("toonify", photo, "--style", made, "--outdir", tmp_path / "out")
    assert (pixels(Path(drawn)) != pixels(photo)).any()
    shown = mien("train", "pix2pix", "--pairs", "none", "--outdir", "none", "--preset", "pix2pix", "--dry-run")
    assert json.loads(shown)["l1_weight"] == 100
    said = mien("train", "pix2pix", "--pairs", pairs, "--outdir", run, "--preset", "cyclegan", code=2)
    assert "no preset named 'cyclegan'" in said
    assert "no pairs for train" in mien("train", "pix2pix", "--pairs", tmp_path, "--outdir", run, code=2)


def test_a_clip_is_drawn_picture_by_picture(student: Path, photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    with PIL.Image.open(photo) as image:
        save_mp4([image.convert("RGB")] * 3, tmp_path / "clip.mp4", fps=10)
    made = mien("toonify", tmp_path / "clip.mp4", "--style", student, "--outdir", tmp_path / "out")
    assert made == str(tmp_path / "out" / "clip.mp4")
    assert len(list(clip_frames(Path(made)))) == 3
    said = mien("toonify", tmp_path / "clip.mp4", "--style", student, "--outdir", tmp_path / "no", "--crop", code=2)
    assert "clip.mp4 is a clip" in said
