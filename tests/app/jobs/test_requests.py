"""Requests are read strictly, and done by the studio as the commands do them."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from PIL.Image import Image
from typer.testing import CliRunner

from mien.app.artists import bundled_styles
from mien.app.cli import app
from mien.app.jobs.drawings import Generate
from mien.app.jobs.queue import Queue, open_queue
from mien.app.jobs.requests import check
from mien.app.jobs.work import Work
from mien.app.settings import JobSettings, MarkSettings, TrustSettings
from mien.app.studio import Studio
from mien.edits.toonify import ToonConfig
from mien.errors import Cancelled, InputError, NoFaceError
from mien.images import open_photo
from mien.marks import Origin, mp4_box
from mien.nets.student import Student
from mien.report import Step
from mien.video import clip_info
from mien.weights.delta import save_difference
from mien.weights.load import load_generator, save_net

EDIT: dict[str, Any] = {"op": "edit", "strengths": {"smile": 1.0}}
CHANGE: dict[str, Any] = {"op": "change", "operations": [EDIT], "method": "encoder"}


# ---- Reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "num", "label"),
    [
        (CHANGE, 1, "edit by encoder"),
        (
            {**CHANGE, "operations": [EDIT, {"op": "mix", "person": {"seed": 3}, "layers": [1]}]},
            1,
            "edit+mix by encoder",
        ),
        ({"op": "generate", "seeds": [1, 2]}, 0, "generate"),
        ({"op": "mix", "layers": [1]}, 2, "mix"),
        ({"op": "swap", "face": 1}, 2, "swap"),
        ({"op": "blend", "weights": [0.5, 0.5]}, 2, "blend"),
        ({"op": "morph"}, 2, "morph"),
        ({"op": "stylize", "size": 64}, 3, "stylize"),
        ({"op": "toonify", "style": "drawn-64"}, 1, "toonify"),
        ({"op": "morph", "video": True, "frames": 200}, 4, "morph"),
        ({"op": "sweep", "style": "drawn-64"}, 0, "sweep"),
        ({"op": "lab"}, 6, "lab"),
    ],
)
def test_labels(request_: dict[str, Any], num: int, label: str) -> None:
    assert check(request_, num).label == label


@pytest.mark.parametrize(
    ("request_", "num", "message"),
    [
        ({}, 0, "request: the request has no 'op'"),
        ({"op": "exec", "code": "1"}, 0, "request: the request is unknown: 'exec'"),
        ({"op": "generate"}, 0, "request: the request, generate, has no seeds"),
        ({"op": "generate", "seeds": "1"}, 0, "request: the request, generate,.seeds must be a list"),
        ({"op": "generate", "seeds": [True]}, 0, "must be a whole number"),
        ({"op": "generate", "seeds": list(range(17))}, 0, "17 people"),
        ({"op": "generate", "seeds": [-1]}, 0, "a seed or psi is out of range"),
        ({"op": "generate", "seeds": [1], "network": "/etc/passwd"}, 0, "has the unknown field 'network'"),
        ({"op": "generate", "seeds": [1]}, 1, "1 pictures for generate"),
        (CHANGE, 2, "2 pictures for edit by encoder"),
        ({"op": "change"}, 1, "request: operations must be a list"),
        ({**CHANGE, "operations": []}, 1, "0 operations"),
        ({**CHANGE, "operations": [{"op": "edit", "strengths": {"smile": float("inf")}}]}, 1, "the request is no JSON"),
        ({**CHANGE, "operations": [{"op": "edit", "strengths": {"smile": "1"}}]}, 1, "must be a number"),
        ({**CHANGE, "method": "nonsense"}, 1, "nonsense"),
        ({**CHANGE, "steps": 10**6}, 1, "1000000 steps"),
        ({**CHANGE, "face": -1}, 1, "no face has number -1"),
        ({"op": "blend", "weights": [0.5, 0.6]}, 2, "the weights of a blend are shares of one"),
        ({"op": "blend", "weights": [2.0, -1.0]}, 2, "the weights of a blend are shares of one"),
        ({"op": "morph", "frames": 1}, 2, "1 pictures of a way"),
        ({"op": "stylize", "preset": "x"}, 2, "no preset named 'x'"),
        ({"op": "stylize", "size": 9999}, 2, "a size of 9999 px"),
        ({"op": "stylize", "colours": "red"}, 2, "red"),
        ({"op": "morph", "video": True, "frames": 9999}, 2, "9999 pictures of a way"),
        ({"op": "sweep", "style": "faces-64"}, 0, "no generator named 'faces-64'"),
        ({"op": "sweep", "style": "drawn-64", "seeds": [1]}, 0, "a sweep needs two seeds"),
        ({"op": "sweep", "style": "drawn-64", "seeds": list(range(7))}, 0, "7 people"),
        ({"op": "lab", "edit_steps": 0}, 1, "0 steps of an edit"),
        ({"op": "lab"}, 7, "7 pictures for lab"),
        ({"op": "toonify"}, 1, "has no style"),
        ({"op": "toonify", "style": "/etc/passwd"}, 1, "no style named '/etc/passwd'"),
        ({"op": "toonify", "style": "faces-64"}, 1, "no style named 'faces-64'"),
        ({"op": "toonify", "style": "drawn-64", "strength": 2.0}, 1, "strength is 2"),
        ({"op": "toonify", "style": "drawn-64", "whole": True, "face": 0}, 1, "a whole picture is more than one face"),
        ({"op": "mix", "layers": [1], "person": {}}, 1, "a person is told by a seed or by a code"),
        ({"op": "generate", "seeds": [1], "psi": "x" * 2_000_000}, 0, "longer than 1 MiB"),
    ],
)
def test_what_is_no_request(request_: dict[str, Any], num: int, message: str) -> None:
    with pytest.raises(InputError) as err:
        check(request_, num)
    assert message in err.value.message and "recipe" not in err.value.message


def test_nonsense_is_refused_and_nothing_else_happens() -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")
    from hypothesis import strategies as st

    names = [
        "op",
        "operations",
        "strengths",
        "seeds",
        "psi",
        "layers",
        "person",
        "ws",
        "shape",
        "float32",
        "face",
        "size",
    ]
    kinds = ["change", "generate", "mix", "swap", "stylize", "edit", "drag", "express", "style"]
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(kinds)
    trees = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(names), inner, max_size=4),
        max_leaves=12,
    )
    requests = st.dictionaries(st.sampled_from(names), trees, max_size=5)

    @hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @hypothesis.given(requests, st.sampled_from(kinds[:5]), st.integers(0, 3))
    def run(request: dict[str, Any], op: str, num: int) -> None:
        try:
            check({**request, "op": op}, num)
        except InputError as err:
            assert err.message

    run()


# ---- Doing -----------------------------------------------------------------------------------------------------------


def work_on(*pictures: Image, **trust: int) -> Work:
    return Work(Studio(), pictures, lambda step: None, TrustSettings(**trust))


def run(request: dict[str, Any], work: Work) -> list[Image]:
    made = check(request, len(work.pictures)).run(work)
    assert all(one.image.mode == "RGB" for one in made)
    return [one.image for one in made]


def changed(before: Image, after: Image) -> list[bool]:
    """For each hundred px of width, whether something is other."""
    different = (np.asarray(before) != np.asarray(after)).any(-1)
    return [bool(different[:, x : x + 100].any()) for x in range(0, before.width, 100)]


def test_a_change_is_that_of_the_command(bundle: Path, photo: Path, tmp_path: Path) -> None:
    before = open_photo(photo)
    (image,) = run(CHANGE, work_on(before))
    out = tmp_path / "edited.png"
    args = ["edit", str(photo), "--set", "smile=1", "--method", "encoder", "--out", str(out)]
    assert CliRunner().invoke(app, args).exit_code == 0
    assert open_photo(out).tobytes() == image.tobytes() and changed(before, image) == [True, True]


def test_only_some_faces(bundle: Path, photo: Path) -> None:
    before = open_photo(photo)
    assert changed(before, run({**CHANGE, "face": 1}, work_on(before))[0]) == [True, False]
    work = work_on(before, max_faces=1)
    assert run(CHANGE, work)[0].tobytes() == run({**CHANGE, "face": 0}, work_on(before))[0].tobytes()
    assert work.notes == ["1 of 2 faces are done, the largest"]


def test_an_aligned_crop_is_invented_anew(bundle: Path) -> None:
    made = check({**CHANGE, "aligned": True}, 1).run(work_on(PIL.Image.new("RGB", (32, 32), "red")))
    assert [one.origin for one in made] == [Origin.INVENTED] and made[0].image.size == (16, 16)


def test_a_mix_takes_another_photo_or_a_person(bundle: Path, photo: Path) -> None:
    before = open_photo(photo)
    way = {"op": "mix", "layers": [2], "method": "encoder", "face": 0}
    assert run(way, work_on(before, before))[0].tobytes() == before.tobytes(), "nobody changes by their own rows"
    assert any(changed(before, run({**way, "person": {"seed": 3}}, work_on(before))[0]))
    for work, request in ((work_on(before), way), (work_on(before, before), {**way, "person": {"seed": 3}})):
        with pytest.raises(InputError, match="a mix needs one other person"):
            run(request, work)


def bluer(image: Image) -> Image:
    """The same discs, in other colours."""
    pixels = np.asarray(image).copy()
    pixels[..., 2] = np.linspace(0, 255, image.width)
    return PIL.Image.fromarray(pixels)


def test_a_blend_is_between_its_people(bundle: Path, photo: Path) -> None:
    before = open_photo(photo)
    other = bluer(before)
    way = {"op": "blend", "method": "encoder"}
    (alone,) = run({**way, "weights": [1.0, 0.0]}, work_on(before, other))
    assert alone.tobytes() == before.tobytes(), "nobody changes by themselves"
    half, whole = (run({**way, "weights": [1 - w, w]}, work_on(before, other))[0] for w in (0.5, 1.0))
    distance = [np.abs(np.asarray(one, float) - np.asarray(before, float)).sum() for one in (half, whole)]
    assert 0 < distance[0] < distance[1]
    with pytest.raises(InputError, match="3 weights for 2 pictures"):
        run({**way, "weights": [0.5, 0.25, 0.25]}, work_on(before, other))


def test_a_morph_begins_and_ends_with_its_people(bundle: Path, photo: Path) -> None:
    before = open_photo(photo)
    other = bluer(before)
    way = {"op": "morph", "frames": 4, "method": "encoder"}
    there, back = (np.asarray(run(way, work_on(*two))[0]) for two in ((before, other), (other, before)))
    assert there.shape == back.shape == (44, 44, 3)
    np.testing.assert_array_equal(there[4:20, 4:20], back[24:40, 24:40])
    assert (there[4:20, 4:20] != there[24:40, 24:40]).any()


def test_a_morph_as_a_video_walks_through_everybody(bundle: Path, photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    before = open_photo(photo)
    way = {"op": "morph", "video": True, "frames": 12, "face": 1, "method": "encoder"}
    work = work_on(before, bluer(before), before)
    seen: list[Step] = []
    work.on_step = seen.append
    (film,) = check(way, 3).run(work)
    data = film.file(MarkSettings(visible=True))
    assert data.endswith(mp4_box(Origin.INVENTED)) and seen[-1] == Step("frames", 12, 12)
    (tmp_path / "film.mp4").write_bytes(data)
    assert (clip_info(tmp_path / "film.mp4").num_frames, clip_info(tmp_path / "film.mp4").size) == (12, (256, 256))
    with pytest.raises(InputError, match="3 people on one way"):
        check({"op": "morph", "method": "encoder"}, 3).run(work)


@pytest.mark.slow
def test_a_lab_report_is_packed(bundle: Path, photo: Path) -> None:
    before = open_photo(photo)
    work = work_on(before, bluer(before), PIL.Image.new("RGB", (120, 90), "grey"))
    (packed,) = check({"op": "lab", "edit_steps": 1}, 3).run(work)
    with zipfile.ZipFile(io.BytesIO(packed.file(MarkSettings()))) as archive:
        names, page = archive.namelist(), archive.read("report/index.html").decode()
        figure = archive.read("report/figures/swaps.png")
    assert "report/report.json" in names and not any(name.endswith(".mien") for name in names)
    shown = re.findall(r'(?:src|href)="([^"#:]+)"', page)
    assert shown and {f"report/{name}" for name in shown} <= set(names), "the page shows nothing that is not there"
    assert "person A" in page and "person C" in page and b"TrainedAlgorithmicMedia" in figure


@pytest.mark.usefixtures("styles")
def test_a_sweep_is_one_figure() -> None:
    work = work_on()
    (figure,) = check({"op": "sweep", "style": "art", "seeds": [1, 2]}, 0).run(work)
    assert min(figure.image.size) > 500
    with pytest.raises(InputError, match="no generator named 'sketch'"):
        check({"op": "sweep", "style": "sketch"}, 0)


@pytest.fixture
def styles(bundle: Path) -> Iterator[None]:
    """A translator and an adapted generator among the shipped networks."""
    torch.manual_seed(0)
    student = Student(widths=(4, 4), num_blocks=(0, 0), img_resolution=32)
    torch.nn.init.normal_(student.last.bias)  # type: ignore[arg-type]
    save_net(student, bundle / "sketch.safetensors")
    G: Any = load_generator("faces-64")
    for tensor in G.synthesis.parameters():
        tensor.mul_(0.9).add_(0.1 * torch.randn_like(tensor))
    save_difference(G, bundle / "art.safetensors", base=load_generator("faces-64"), base_name="faces-64")
    yield
    for name in ("sketch", "art"):
        (bundle / f"{name}.safetensors").unlink()


def drawn_faces(before: Image, after: Image) -> list[bool]:
    """For the left and the right face of `photo`, whether its nose is other."""
    different = (np.asarray(before) != np.asarray(after)).any(-1)
    return [bool(different[60, x]) for x in (40, 150)]


@pytest.mark.usefixtures("styles")
def test_toonify_draws_by_the_networks_of_the_package(photo: Path) -> None:
    assert bundled_styles() == ["sketch", "art"]
    before = open_photo(photo)
    for style in bundled_styles():
        way = {"op": "toonify", "style": style}
        drawn, one, half = (run(way | more, work_on(before))[0] for more in ({}, {"face": 0}, {"strength": 0.5}))
        assert drawn_faces(before, drawn) == [True, True] and drawn_faces(before, one) == [False, True]
        studio = Studio()
        assert half == studio.toonify(before, studio.artist(style), ToonConfig(strength=0.5)) != drawn
    work = work_on(before, max_faces=1)
    assert drawn_faces(before, run({"op": "toonify", "style": "sketch"}, work)[0]) == [False, True]
    assert work.notes == ["1 of 2 faces are done, the largest"]


@pytest.mark.usefixtures("styles")
def test_a_whole_picture_is_drawn_also_without_faces() -> None:
    empty = PIL.Image.new("RGB", (120, 90), (20, 60, 90))
    way = {"op": "toonify", "style": "sketch"}
    assert all(changed(empty, run({**way, "whole": True}, work_on(empty))[0]))
    with pytest.raises(NoFaceError, match="no face found"):
        run(way, work_on(empty))
    with pytest.raises(InputError, match="art draws faces only"):
        run({**way, "style": "art", "whole": True}, work_on(empty))


def test_people_are_invented_and_can_be_stopped(bundle: Path) -> None:
    work = work_on()
    assert [image.size for image in run({"op": "generate", "seeds": [1, 2]}, work)] == [(16, 16)] * 2
    seen: list[Step] = []

    def stop(step: Step) -> None:
        seen.append(step)
        if step.done == 1:
            raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        Generate(seeds=(1, 2, 3)).run(Work(work.studio, [], stop, TrustSettings()))
    assert [step.done for step in seen] == [0, 1]


@pytest.mark.slow
def test_a_swap_and_a_painting_call_the_studio(bundle: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, painting = open_photo(photo), PIL.Image.new("RGB", (40, 40), "blue")
    (painted,) = run({"op": "stylize", "size": 32, "steps": 1}, work_on(before, painting))
    assert max(painted.size) == 32
    (swapped,) = run({"op": "swap", "face": 1, "steps": 1}, work_on(before, before))
    assert swapped.size == before.size and changed(before, swapped)[1] is False


# ---- Commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    pytest.importorskip("sqlalchemy", reason="needs the extra jobs")
    monkeypatch.setenv("MIEN_JOBS_FOLDER", str(tmp_path / "queue"))
    return open_queue(JobSettings(folder=tmp_path / "queue"))


def mien(*args: str) -> Any:
    return CliRunner().invoke(app, list(args))


def test_the_operator_looks_after_jobs(queue: Queue) -> None:
    first = queue.submit(CHANGE, user="tg:123456", inputs=[b"photo"], operation="edit by encoder")
    second = queue.submit({"op": "generate"}, user="bert")
    shown = mien("jobs", "list")
    assert shown.exit_code == 0 and "123456" not in shown.output
    assert f"{first.id[:8]}  queued     edit by encoder" in shown.stdout and "queued 2" in shown.stderr
    told = json.loads(mien("jobs", "show", first.id[:8]).stdout)
    assert (told["position"], told["left_s"], told["workers"], told["state"]) == (1, None, 0, "queued")
    assert mien("jobs", "cancel", first.id).stdout == f"{first.id[:8]}  cancelled\n"
    assert json.loads(mien("jobs", "list", "--json").stdout)["counts"]["cancelled"] == 1
    assert mien("jobs", "delete", second.id).stdout == f"{second.id[:8]}  deleted\n"
    assert mien("jobs", "delete", "--user", "tg:123456").stdout == "1 jobs deleted\n"


def test_what_the_operator_gets_wrong(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.submit(CHANGE, user="anna")
    for args, message in (
        (("show", "zz"), "no job begins with zz"),
        (("cancel", ""), "no job begins with"),
        (("delete",), "what is to be deleted?"),
    ):
        wrong = mien("jobs", *args)
        assert wrong.exit_code == 2 and message in wrong.stderr
    monkeypatch.setenv("MIEN_JOBS_MAX_WAITING", "none")
    wrong = mien("worker")
    assert wrong.exit_code == 2 and "MIEN_JOBS_MAX_WAITING is not a whole number" in wrong.stderr
