"""The page without a browser: every act with a generated face, what the queue does, and what is forgotten."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mien.app.artists import adapted_styles, bundled_styles
from mien.app.jobs.queue import Queue
from mien.app.jobs.worker import Worker, run_requests
from mien.app.settings import JobSettings, Settings
from mien.app.web.acts import Acts
from mien.app.web.desk import Desk
from mien.app.web.desks import Desks
from mien.app.web.stage import Answer
from mien.errors import NoFaceError

from .conftest import blank_png, face_png, to_the_end, value, words

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_sliders_change_the_face_and_can_be_undone(acts: Acts, session: str) -> None:
    desk = acts.desks.of(session)
    before = desk.now.photo
    names = list(desk.studio.directions.directions)
    strengths = [1.5 if name == "smile" else 0.0 for name in names]
    assert "data:image/jpeg" in value(list(acts.run(acts.live, session, *strengths)), "live")
    answers = list(acts.run(acts.edit, session, *strengths))
    assert "Done: adjust" in words(answers) and desk.now.photo.tobytes() != before.tobytes()
    result = Path(value(answers, "download")).read_bytes()
    assert b"compositeWithTrainedAlgorithmicMedia" in result and PIL.Image.open(io.BytesIO(result)).size == before.size
    list(acts.run(acts.edit, session, *strengths))
    assert len(desk.moments) == 2, "one slider's moves are one step"
    answers = list(acts.run(acts.undo, session))
    assert value(answers, "set:smile") == 0 and desk.now.photo.tobytes() == before.tobytes()


def test_a_recipe_repeats_the_change_to_the_byte(acts: Acts, session: str, face: bytes) -> None:
    desk = acts.desks.of(session)
    desk.edit({"smile": 1.0})
    changed = desk.now.photo.tobytes()
    path = value(list(acts.run(acts.recipe, session)), "recipe")
    list(acts.run(acts.reset, session))
    assert "Done: repeat" in words(list(acts.run(acts.replay, session, Path(path).read_bytes())))
    assert desk.now.photo.tobytes() == changed
    assert "told bad" in words(list(acts.run(acts.replay, session, b"\xff{")))


def test_style_of_a_seed_and_of_a_picture(acts: Acts, session: str, face: bytes) -> None:
    desk = acts.desks.of(session)
    first = desk.now.photo.tobytes()
    assert "Done" in words(list(acts.run(acts.style, session, None, 5, 0.9, False)))
    assert desk.now.photo.tobytes() != first
    assert "Done" in words(list(acts.run(acts.style, session, face_png(9), 5, 0.9, True)))
    assert len(desk.now.changes[0]) == 1, "a style takes the place of the one before"


def test_blend_draws_the_shares(acts: Acts, session: str) -> None:
    answers = list(acts.run(acts.blend, session, [face_png(9)], 0.25, 0.75, 0.5, 0.5))
    assert "--part:75.0%" in value(answers, "chart") and "Done: blend" in words(answers)
    (shown,) = acts.run(acts.people, session, [face_png(9)], 0.25, 0.25, 0.5, 0.5)
    assert isinstance(shown, dict) and "--part:50.0%" in shown["chart"]
    assert [shown[f"weight:{i}"].props["visible"] for i in (1, 2, 3)] == [True, False, False]
    assert "4 pictures are too many" in words(acts.run(acts.people, session, [face_png(9)] * 4, *[0.5] * 4))
    assert "nobody has a weight" in words(list(acts.run(acts.blend, session, [face_png(9)], 0, 0, 1, 1))).lower()


def run(acts: Acts, act: Any, session: str, *values: Any) -> str:
    """Do an act and return all that is said."""
    return words(to_the_end(acts.run(act, session, *values)))


@pytest.mark.slow
@pytest.mark.usefixtures("working")
def test_what_the_queue_does_to_the_photo(acts: Acts, session: str) -> None:
    desk = acts.desks.of(session)
    list(acts.run(acts.aim, session, "mouth_left", 5, -3))
    tries: dict[str, tuple[Any, ...]] = {
        "express": ("happiness", 1.0, None),
        "swap": (face_png(9),),
        "drag": (),
        "stylize": (face_png(9), 0.5),
        "toonify": (bundled_styles()[0], 1.0, "everybody"),
    }
    for name, values in tries.items():
        list(acts.run(acts.reset, session))
        if name == "drag":
            list(acts.run(acts.aim, session, "mouth_left", 5, -3))
        before, told = desk.now.photo.tobytes(), run(acts, getattr(acts, name), session, *values)
        assert "Done" in told and desk.now.photo.tobytes() != before, (name, told)
    assert acts.queue.jobs(desk.user) == [], "nothing of it stays in the queue"


@pytest.mark.slow
@pytest.mark.usefixtures("working")
def test_what_the_queue_makes_beside_the_photo(acts: Acts, session: str) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    desk, before = acts.desks.of(session), acts.desks.of(session).now.photo
    tries = {
        "morph": (([face_png(9)], 2.0), b"ftyp"),
        "sweep": ((adapted_styles()[0],), b"PNG"),
        "lab": (([face_png(9), face_png(4)],), b"PK"),
    }
    for name, (values, magic) in tries.items():
        answers = to_the_end(acts.run(getattr(acts, name), session, *values))
        assert "Done" in words(answers), (name, words(answers))
        assert magic in Path(value(answers, "made_file")).read_bytes()[:16]
    assert desk.now.photo is before


def test_a_job_can_be_stopped(acts: Acts, session: str) -> None:
    desk = acts.desks.of(session)
    answers = acts.run(acts.swap, session, face_png(9))
    first = next(answers)
    assert isinstance(first, dict) and "In the queue: number 1" in first["status"] and desk.errand is not None
    assert "is being made already" in words(acts.run(acts.toonify, session, bundled_styles()[0], 1.0, "everybody"))
    list(acts.run(acts.cancel, session))
    assert "Stopped" in words(answers) and desk.errand is None and acts.queue.jobs(desk.user) == []


def test_a_new_photo_ends_what_runs(acts: Acts, session: str) -> None:
    desk = acts.desks.of(session)
    answers = acts.run(acts.swap, session, face_png(9))
    next(answers)
    assert "Put in a photo" in words(acts.run(acts.new, session))
    assert acts.queue.jobs(desk.user) == [] and desk.errand is None
    assert words(answers) == "", "whoever watched it says nothing more"


def test_a_page_that_is_loaded_anew_goes_on(acts: Acts, face: bytes, settings: Settings) -> None:
    token = "0123456789abcdef" * 2
    acts.desks.join("first", token)
    list(acts.run(acts.open, "first", face))
    before = acts.run(acts.toonify, "first", bundled_styles()[0], 1.0, "everybody")
    next(before)
    before.close()  # type: ignore[attr-defined]  # the browser went away
    desk = acts.desks.of("first")
    assert desk.errand is not None and acts.queue.status(desk.errand.job_id, desk.user).position == 1
    acts.desks.join("second", token)
    assert acts.desks.of("second") is desk and acts.desks.of("third") is not desk
    answers = acts.run(acts.resume, "second")
    told = [next(answers) for _ in range(3)]
    assert "Here is where you were" in words(told[:2]) and "In the queue: number 1" in words(told[2:])
    worker = Worker(acts.queue, run_requests(acts.desks.studio, acts.queue, settings), name="late", poll_s=0.02)
    thread = threading.Thread(target=worker.serve)
    thread.start()
    assert "Done: cartoon" in words(to_the_end(answers)) and desk.errand is None
    worker.stop()
    thread.join()
    assert [moment.what for moment in desk.moments] == ["open", "toonify"]


def test_a_token_that_is_none_joins_nothing(acts: Acts) -> None:
    acts.desks.join("a", "../" * 11)
    acts.desks.join("b", "../" * 11)
    assert acts.desks.of("a") is not acts.desks.of("b")


def test_a_failed_job_is_told_in_the_visitors_language(desks: Desks, queue: Queue, face: bytes) -> None:
    acts = Acts(desks, queue, "ru")
    list(acts.run(acts.open, "olga", face))
    answers = acts.run(acts.swap, "olga", blank_png())
    next(answers)
    job = queue.claims.claim("somebody")
    assert job is not None
    queue.claims.fail(job, NoFaceError("no face found in the photo", hint="x"))
    assert "На снимке не найдено лицо" in words(to_the_end(answers))


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "empty"), (b"<svg/>", "no picture"), (b"\x89PNG\r\n\x1a\nbroken", "not a picture"), (None, "")],
)
def test_what_is_no_photo_is_said_in_words(acts: Acts, data: bytes | None, said: str) -> None:
    told = words(list(acts.run(acts.open, "broken", data)))
    assert said in told and "Traceback" not in told


def test_a_photo_without_a_face(acts: Acts, desks: Desks, queue: Queue) -> None:
    assert "No face found" in words(list(acts.run(acts.open, "none", blank_png())))
    russian = Acts(desks, queue, "ru")
    assert "не найдено лицо" in words(list(russian.run(russian.open, "none", blank_png())))


@pytest.mark.parametrize(
    "name", ["edit", "undo", "reset", "recipe", "drag", "swap", "stylize", "toonify", "morph", "express", "style"]
)
def test_without_a_photo_every_tool_says_so(acts: Acts, name: str) -> None:
    given = {
        "edit": (0.0,) * 3,
        "swap": (b"x",),
        "stylize": (b"x", 0.5),
        "toonify": ("x", 1, "x"),
        "morph": ([b"x"], 2),
        "express": ("anger", 1, None),
        "style": (None, 1, 1, False),
    }
    told = words(acts.run(getattr(acts, name), "nobody", *given.get(name, ())))
    assert "no photo yet" in told


def test_the_unexpected_becomes_a_number(acts: Acts, caplog: pytest.LogCaptureFixture) -> None:
    def act(desk: Desk) -> Iterator[Answer]:
        raise RuntimeError("/home/somebody/sec" + "ret.jpg")
        yield {}

    told = words(list(acts.run(act, "any")))
    assert "Something broke on our side" in told and "secret" not in told + caplog.text
    number = told.split("finds it as ")[1][:8]
    assert number in caplog.text


def test_everything_of_a_visitor_is_deleted(acts: Acts, session: str) -> None:
    desk = acts.desks.of(session)
    assert list(desk.folder.glob("*"))
    list(acts.run(acts.forget, session))
    assert not list(desk.folder.glob("*")) and not acts.desks.of(session).moments


def test_visitors_are_forgotten_in_time(face: bytes, tmp_path: Path, desks: Desks) -> None:
    brief = Desks(desks.studio, Settings(jobs=JobSettings(keep_s=0.05)), tmp_path)
    desk = brief.of("a")
    desk.open(face)
    desk.shown()
    (tmp_path / "upload.png").write_bytes(face)
    time.sleep(0.1)
    brief.tidy()
    assert brief.of("a") is not desk and not [path for path in tmp_path.rglob("*") if path.is_file()]
