"""Every command through typer's runner on tiny networks: what it writes, what it says, how it fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from mien.app.cli import app
from mien.inversion.code import load_inversion

from ..conftest import draw_photo, make_bundle, mien, pixels

pytestmark = pytest.mark.usefixtures("bundle")
QUICK = ["--steps", "2"]


# ---- detect, align, paste


def test_detect_lists_every_face_largest_first(photo: Path) -> None:
    found = json.loads(mien("detect", photo, "--json").stdout)
    assert [entry["photo"] for entry in found] == [str(photo)]
    faces = found[0]["faces"]
    assert [round(f["box"][2] - f["box"][0]) for f in faces] == [61, 41]
    assert all(np.array(f["landmarks"]).shape == (5, 2) and 0 < f["score"] <= 1 for f in faces)
    assert "face 1" in mien("detect", photo).stdout


def test_detect_says_when_there_is_none(tmp_path: Path) -> None:
    draw_photo(()).save(tmp_path / "empty.png")
    assert json.loads(mien("detect", tmp_path / "empty.png", "--json").stdout)[0]["faces"] == []
    assert "no face" in mien("detect", tmp_path / "empty.png").stdout


def test_align_then_paste_gives_the_photo_back(photo: Path, tmp_path: Path) -> None:
    mien("align", photo, "--outdir", tmp_path / "crops", "--size", 64)
    assert sorted(p.name for p in (tmp_path / "crops").iterdir()) == [
        "two_0.json",
        "two_0.png",
        "two_1.json",
        "two_1.png",
    ]
    record = json.loads((tmp_path / "crops" / "two_0.json").read_text())
    assert (record["source"], record["source_size"]) == ("two.png", [200, 120])
    assert np.array(record["quad"]).shape == (4, 2)
    assert np.array(record["matrix"]).shape == (2, 3)
    assert pixels(tmp_path / "crops" / "two_0.png").shape == (64, 64, 3)
    mien("paste", tmp_path / "crops" / "two_0.png", "--outdir", tmp_path / "pasted")
    assert np.abs(pixels(tmp_path / "pasted" / "two_0.png") - pixels(photo)).max() <= 2


def test_align_takes_the_networks_size_by_default(photo: Path, tmp_path: Path) -> None:
    mien("align", photo, "--outdir", tmp_path)
    assert pixels(tmp_path / "two_0.png").shape == (16, 16, 3)


# ---- invert, edit, mix, generate


@pytest.mark.parametrize("method", ["optimize", "encoder"])
def test_invert_writes_a_code_and_its_render(photo: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "codes"
    mien("invert", photo, "--outdir", out, "--method", method, *QUICK)
    assert sorted(p.name for p in out.iterdir()) == ["two_0.png", "two_0.safetensors", "two_1.png", "two_1.safetensors"]
    code = load_inversion(out / "two_1.safetensors")
    assert code.method == method
    assert code.crop["source"] == "two.png"
    assert len(code.network) == 64
    mien("edit", out / "two_1.safetensors", "--set", "smile=0", "--out", tmp_path / "again.png")
    assert np.array_equal(pixels(tmp_path / "again.png"), pixels(out / "two_1.png"))


def test_aligned_pictures_are_rendered_at_the_networks_size(tmp_path: Path) -> None:
    draw_photo((30,)).resize((40, 40)).save(tmp_path / "a.png")
    mien("invert", tmp_path / "a.png", "--aligned", "--outdir", tmp_path / "codes", *QUICK)
    mien("edit", tmp_path / "a.png", "--aligned", "--set", "smile=0", "--out", tmp_path / "same.png", *QUICK)
    mien("edit", tmp_path / "a.png", "--aligned", "--set", "smile=2", "--out", tmp_path / "smile.png", *QUICK)
    assert np.array_equal(pixels(tmp_path / "codes" / "a_0.png"), pixels(tmp_path / "same.png"))
    assert pixels(tmp_path / "smile.png").shape == (16, 16, 3)
    assert not np.array_equal(pixels(tmp_path / "smile.png"), pixels(tmp_path / "same.png"))


def test_aligned_pictures_must_be_square(photo: Path, tmp_path: Path) -> None:
    result = mien("edit", photo, "--aligned", "--set", "smile=1", "--out", tmp_path / "o.png", code=2)
    assert "no aligned crop" in result.stderr


def test_edit_changes_every_face_or_the_one_that_is_named(photo: Path, tmp_path: Path) -> None:
    before = pixels(photo)
    mien("edit", photo, "--set", "smile=3", "--set", "yaw=-2", "--out", tmp_path / "all.png", *QUICK)
    mien("edit", photo, "--set", "smile=3", "--face", 1, "--out", tmp_path / "one.png", *QUICK)
    both, one = (np.abs(pixels(tmp_path / name) - before).max(axis=2) for name in ("all.png", "one.png"))
    assert both[40:80, 30:70].max() > 0
    assert both[40:80, 130:170].max() > 0
    assert one[40:80, 30:70].max() > 0
    assert one[40:80, 130:170].max() == 0
    result = mien("edit", photo, "--set", "smile=1", "--face", 2, "--out", tmp_path / "none.png", code=2)
    assert "shows 2 faces, none has number 2" in result.stderr
    assert not (tmp_path / "none.png").exists()


def test_edit_warns_beyond_the_safe_range(photo: Path, tmp_path: Path) -> None:
    result = mien("edit", photo, "--set", "age=3.5", "--out", tmp_path / "o.png", *QUICK)
    assert "age=3.5 is beyond -3 to 3" in result.stderr


@pytest.mark.parametrize("style", ["seed:3", "photo", "code"])
def test_mix_takes_rows_of_a_style(photo: Path, tmp_path: Path, style: str) -> None:
    mien("invert", photo, "--outdir", tmp_path, *QUICK)
    style = {"photo": str(photo), "code": str(tmp_path / "two_1.safetensors")}.get(style, style)
    mien("mix", tmp_path / "two_0.safetensors", style, "--layers", "2-", "--out", tmp_path / "m.png", *QUICK)
    assert pixels(tmp_path / "m.png").shape == (16, 16, 3)
    mien("mix", photo, style, "--layers", "4-", "--out", tmp_path / "whole.png", *QUICK)
    assert pixels(tmp_path / "whole.png").shape == (120, 200, 3)


def test_mix_of_all_rows_is_the_style(tmp_path: Path) -> None:
    mien("mix", "seed:1", "seed:2", "--layers", "0-", "--out", tmp_path / "m.png")
    mien("generate", "--seeds", "1-2,5", "--outdir", tmp_path / "people")
    assert sorted(p.name for p in (tmp_path / "people").iterdir()) == ["seed1.png", "seed2.png", "seed5.png"]
    assert np.array_equal(pixels(tmp_path / "m.png"), pixels(tmp_path / "people" / "seed2.png"))
    mien("generate", "--seeds", "1", "--psi", "0", "--outdir", tmp_path / "mean")
    assert not np.array_equal(pixels(tmp_path / "mean" / "seed1.png"), pixels(tmp_path / "people" / "seed1.png"))


def test_the_same_command_gives_the_same_picture(photo: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        mien("edit", photo, "--set", "smile=1", "--seed", 4, "--out", tmp_path / name, *QUICK)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# ---- failures


def test_a_batch_goes_on_and_lists_what_failed(photo: Path, tmp_path: Path) -> None:
    broken, empty, missing = tmp_path / "broken.jpg", tmp_path / "empty.png", tmp_path / "missing.png"
    broken.write_bytes(b"not a picture")
    draw_photo(()).save(empty)
    for command in (["align"], ["invert", *QUICK]):
        outdir = tmp_path / command[0]
        result = mien(*command, broken, photo, empty, missing, "--outdir", outdir, code=3)
        assert "3 of 4 inputs failed" in result.stderr
        assert "not a picture that mien can read" in result.stderr
        assert f"no face found in {empty.name}" in result.stderr
        assert f"cannot read {missing}" in result.stderr
        assert sorted(p.stem for p in outdir.glob("*.png")) == ["two_0", "two_1"]
    found = json.loads(mien("detect", broken, photo, "--json", code=3).stdout)
    assert [entry["photo"] for entry in found] == [str(photo)]


def test_two_inputs_of_one_name_are_refused_before_work(photo: Path, tmp_path: Path) -> None:
    twin = tmp_path / "two.jpg"
    draw_photo((30,)).save(twin)
    for command in ("align", "invert", "paste"):
        result = mien(command, photo, twin, "--outdir", tmp_path / "o", code=2)
        assert "would have one name" in result.stderr
        assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "smile"], "is no setting"),
        (["--set", "beard=1"], "no direction named 'beard'"),
        (["--set", "smile=1", "--method", "magic"], "no method named 'magic'"),
        (["--set", "smile=1", "--device", "toaster"], "no device named 'toaster'"),
        (["--set", "smile=1", "--precision", "fp8"], "no precision named 'fp8'"),
        (["--set", "smile=1", "--out", "o.jpg"], "does not end in .png"),
    ],
)
def test_wrong_usage_gives_one_error_with_a_hint(photo: Path, tmp_path: Path, args: list[str], message: str) -> None:
    out = [] if "--out" in args else ["--out", tmp_path / "o.png"]
    result = mien("edit", photo, *args, *out, code=2)
    assert message in result.stderr
    assert "hint:" in result.stderr
    assert "Traceback" not in result.stderr


def test_unknown_options_and_missing_ones_are_usage_errors(photo: Path) -> None:
    mien("edit", photo, "--out", "o.png", code=2)
    mien("align", photo, "--nonsense", code=2)
    mien("align", "--outdir", "o", code=2)


def test_a_network_that_is_not_there(photo: Path, tmp_path: Path) -> None:
    for args in (["align", photo, "--outdir", tmp_path], ["invert", photo, "--outdir", tmp_path]):
        result = mien(*args, "--network", "nobody", code=2)
        assert "no weights at nobody" in result.stderr and "faces-64" in result.stderr
    for args in (["edit", photo, "--set", "smile=1"], ["mix", photo, "seed:1", "--layers", "0"]):
        mien(*args, "--out", tmp_path / "o.png", "--network", "nobody", code=2)
    mien("generate", "--seeds", 1, "--outdir", tmp_path, "--network", "nobody", code=2)
    mien("demo", "--outdir", tmp_path, "--network", "nobody", code=2)


def test_faces_are_found_and_cut_without_a_generator(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: object) -> None:
        raise AssertionError("nobody asked for a generator")

    monkeypatch.setattr("mien.app.capabilities.networks.load_generator", load)
    mien("detect", photo)
    mien("align", photo, "--size", 32, "--outdir", tmp_path / "crops")
    mien("paste", tmp_path / "crops" / "two_0.png", "--outdir", tmp_path / "pasted")


def test_places_that_cannot_be_written_are_said_before_any_work(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*args: object, **kwargs: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("mien.app.studio.Studio.__init__", work)
    file = tmp_path / "file"
    file.write_text("x")
    for args in (["align", photo], ["invert", photo], ["paste", photo], ["generate", "--seeds", 1], ["demo"]):
        for outdir in (file, file / "deep" / "er"):
            assert f"{file} is a file, not a folder" in mien(*args, "--outdir", outdir, code=2).stderr
    for args in (["edit", photo, "--set", "smile=1"], ["mix", photo, "seed:1", "--layers", "0"]):
        assert f"{file} is a file" in mien(*args, "--out", file / "o.png", code=2).stderr

    def closed(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", closed)
    result = mien("edit", photo, "--set", "smile=1", "--out", tmp_path / "new" / "o.png", code=2)
    assert f"cannot write into {tmp_path}: Permission denied" in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_face_cannot_be_chosen_where_there_is_one(photo: Path, tmp_path: Path) -> None:
    out = ["--face", 1, "--out", tmp_path / "o.png"]
    for args in (["edit", photo, "--aligned", "--set", "smile=1"], ["edit", "seed:3", "--set", "smile=1"]):
        assert "--face 1 has no meaning" in mien(*args, *out, code=2).stderr
    assert "--face 1 has no meaning" in mien("mix", "a.safetensors", "seed:1", "--layers", 0, *out, code=2).stderr


def test_an_input_is_never_overwritten(photo: Path, tmp_path: Path) -> None:
    before = photo.read_bytes()
    mien("edit", photo, "--set", "smile=1", "--out", photo, code=2)
    mien("align", photo, "--outdir", tmp_path)
    crop = (tmp_path / "two_0.png").read_bytes()
    result = mien("paste", tmp_path / "two_0.png", "--outdir", tmp_path, code=3)
    assert "would overwrite its input" in result.stderr
    assert photo.read_bytes() == before
    assert (tmp_path / "two_0.png").read_bytes() == crop


def test_a_code_of_another_generator_is_refused(photo: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path, seed=1) / "faces-64.safetensors"
    mien("invert", photo, "--network", other, "--outdir", tmp_path, *QUICK)
    result = mien("edit", tmp_path / "two_0.safetensors", "--set", "smile=1", "--out", tmp_path / "o.png", code=2)
    assert "another generator" in result.stderr


def test_an_encoder_of_another_generator_is_refused(photo: Path, tmp_path: Path) -> None:
    one, two = make_bundle(tmp_path / "a", seed=1), make_bundle(tmp_path / "b", seed=2)
    name = "encoder-faces-64.safetensors"
    (one / name).write_bytes((two / name).read_bytes())
    result = mien("invert", photo, "--network", one / "faces-64.safetensors", "--outdir", tmp_path / "o", code=1)
    assert "was trained for another generator" in result.stderr
    args = ["--network", one / "faces-64.safetensors", "--outdir", tmp_path / "o"]
    mien("invert", photo, *args, "--method", "average+none")  # which needs none


def test_a_network_without_encoder_says_so(photo: Path, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, seed=1)
    (folder / "encoder-faces-64.safetensors").unlink()
    args = ["invert", photo, "--network", folder / "faces-64.safetensors", "--outdir", tmp_path / "o"]
    assert "has no encoder" in mien(*args, "--method", "encoder", code=1).stderr
    mien(*args, *QUICK)


def test_a_defect_leaves_a_log_and_exit_code_1(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("mien.app.studio.detect", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = mien("detect", photo, code=1)
    assert "unexpected error: RuntimeError: boom" in result.stderr
    (log,) = tmp_path.glob("mien-*.log")
    assert "Traceback" in log.read_text()


def test_ctrl_c_stops_cleanly(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mien.app.studio.Studio.invert", stop)
    mien("invert", photo, "--outdir", tmp_path / "o", code=130)
    assert not (tmp_path / "o").exists()


STUBBORN = """
import time
from mien.app.cli import app, main

@app.command()
def hang() -> None:
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("tidying up", flush=True)
        time.sleep(60)

main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_a_second_ctrl_c_leaves_at_once() -> None:
    command = [sys.executable, "-c", STUBBORN, "hang"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for said in ("working", "tidying up"):
            assert process.stdout.readline() == f"{said}\n"
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


# ---- help


def commands() -> list[str]:
    return [name for name, command in get_command(app).commands.items() if not hasattr(command, "commands")]


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command: str) -> None:
    assert "Example" in mien(command, "--help").stdout
    assert "mien 0." in mien("--version").stdout


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    """Half a second where nothing else runs; the bound here is for machines that do much else."""
    code = """
import sys, time
started = time.process_time()
from mien.app.cli import app
try:
    app(["--help"])
except SystemExit:
    pass
heavy = {"torch", "numpy", "PIL", "skimage", "safetensors"} & set(sys.modules)
print(f"heavy={sorted(heavy)} seconds={time.process_time() - started:.2f}")
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    last = result.stdout.splitlines()[-1]
    assert last.startswith("heavy=[] seconds=")
    assert float(last.rpartition("=")[2]) < 2
