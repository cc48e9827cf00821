"""mien express: by name, from a picture, from a direction, as published; only brows, eyes and mouth change."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import PIL.Image
import pytest
import torch

from mien.app.commands import express as command
from mien.app.operations import Express
from mien.app.studio import Studio
from mien.edits.expression import MOVING, ExpressionConfig, region
from mien.errors import InputError
from mien.images import to_tensor
from mien.nets.features import EXPRESSIONS

from ..conftest import pixels, printed

pytestmark = pytest.mark.usefixtures("bundle")
QUICK = ("--method", "encoder", "--device", "cpu")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.edits.expression.ExpressionConfig", lambda: ExpressionConfig(num_steps=2))


def test_an_emotion_changes_the_faces_and_nothing_else(photo: Path, tmp_path: Path) -> None:
    assert printed("express", photo, "--emotion", "surprise", "--out", tmp_path / "a.png", *QUICK).split()
    changed = np.abs(pixels(tmp_path / "a.png") - pixels(photo)).max(axis=2) > 0
    assert changed.any()
    assert not changed[0, 0]


def test_outside_of_brows_eyes_and_mouth_the_render_stays(tmp_path: Path) -> None:
    printed("express", "seed:3", "--emotion", "happiness", "--out", tmp_path / "a.png", *QUICK)
    before = np.asarray(Studio().picture(Studio().seed_code(3))).astype(int)
    still = region(16)[0, 0].numpy() == 0
    assert np.array_equal(pixels(tmp_path / "a.png")[still], before[still])


def test_strength_zero_keeps_the_expression(tmp_path: Path) -> None:
    studio = Studio()
    code = studio.seed_code(3)
    own = studio.expression(studio.render(code))
    config = ExpressionConfig(num_steps=0)
    assert list(own) == [EXPRESSIONS[i] for i in MOVING]
    same = studio.express(code, {"mouthSmile": 1.0}, 0.0, config=config)
    np.testing.assert_allclose(same.ws.numpy(), code.ws.numpy(), atol=1e-4)
    again = studio.express(code, own, config=config)
    np.testing.assert_allclose(again.ws.numpy(), code.ws.numpy(), atol=1e-4)


def test_from_a_photo_a_code_and_a_direction(photo: Path, tmp_path: Path) -> None:
    made = [tmp_path / f"{name}.png" for name in "abcd"]
    printed("express", "seed:3", "--from", photo, "--out", made[0], *QUICK)
    printed("express", "seed:3", "--from", "seed:8", "--out", made[1], *QUICK)
    printed("express", "seed:3", "--direction", "smile", "--strength", 2, "--out", made[2], *QUICK)
    printed("express", "seed:3", "--direction", "smile", "--preset", "lab-emotion", "--out", made[3], *QUICK)
    assert all(pixels(path).shape == (16, 16, 3) for path in made)


def test_operations_differ_by_what_they_are_given() -> None:
    studio = Studio()
    code = studio.seed_code(3)
    wanted: list[dict[str, Any]] = [
        {"shown": {"jawOpen": 1.0}},
        {"shown": {"jawOpen": 1.0}, "strength": 0.5},
        {"direction": "smile"},
        {"direction": "smile", "preset": "lab-emotion"},
        {"direction": "smile", "preset": "lab-emotion", "strength": 2.0},
    ]
    codes = [Express(**{"shown": {}, **one}).apply(studio, code).ws for one in wanted]
    assert all(not torch.equal(a, b) for i, a in enumerate(codes) for b in (code.ws, *codes[:i]))
    torch.testing.assert_close(codes[4] - code.ws, 2 * (codes[3] - code.ws))
    for wrong in ({"shown": {}}, {"shown": {"jawOpen": 1.0}, "preset": "lab-emotion"}):
        with pytest.raises(InputError, match="by blendshapes or by a direction"):
            Express(**wrong)


def test_a_recipe_does_it_again(photo: Path, tmp_path: Path) -> None:
    recipe, first = tmp_path / "r.json", tmp_path / "a.png"
    printed("express", photo, "--emotion", "anger", "--recipe", recipe, "--out", first, *QUICK)
    printed("replay", recipe, photo, "--outdir", tmp_path / "again", "--device", "cpu")
    assert np.array_equal(pixels(tmp_path / "again" / "two.png"), pixels(first))


def test_mediapipe_reads_the_photo_at_its_own_size(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, image: PIL.Image.Image, face: object) -> SimpleNamespace:
            assert image.size == pixels(photo).shape[1::-1]
            assert face is not None
            return SimpleNamespace(blendshapes=dict.fromkeys((*EXPRESSIONS, "cheekPuff"), 0.25))

    monkeypatch.setattr("mien.faces.landmarks.load_landmarker", lambda on_step: Reader())
    subjects = SimpleNamespace(studio=Studio(), bars=None, aligned=False)
    assert command.shown_in(subjects, str(photo), "mediapipe") == {EXPRESSIONS[i]: 0.25 for i in MOVING}  # type: ignore[arg-type]
    with pytest.raises(InputError, match="reads photos, not seed:3"):
        command.shown_in(subjects, "seed:3", "mediapipe")  # type: ignore[arg-type]


def test_the_expression_of_a_photo_is_read_from_its_largest_face(photo: Path) -> None:
    studio = Studio()
    subjects = SimpleNamespace(studio=studio, bars=None, aligned=False)
    with PIL.Image.open(photo) as image:
        crop = studio.align(image.convert("RGB"), size_px=96)[0]
    assert command.shown_in(subjects, str(photo), "network") == studio.expression(to_tensor(crop.image))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "one expression at a time"),
        (("--emotion", "anger", "--direction", "smile"), "one expression at a time"),
        (("--emotion", "boredom"), "no emotion named 'boredom'"),
        (("--direction", "boredom"), "no direction named 'boredom'"),
        (("--from", "seed:1", "--reader", "dlib"), "no reader named 'dlib'"),
        (("--from", "seed:1", "--reader", "mediapipe"), "reads photos"),
        (("--emotion", "anger", "--preset", "lab-emotion"), "moves along a direction"),
        (("--direction", "smile", "--preset", "lab"), "no preset named 'lab'"),
        (("--from", "missing.png"), "missing.png"),
    ],
)
def test_wrong_use_ends_in_one_word(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in printed("express", "seed:1", *args, "--out", tmp_path / "t.png", *QUICK, code=2)
    assert not (tmp_path / "t.png").exists()
