"""The page without a browser: its texts, every act with a generated face, the plain API, and what is forgotten."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import string
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

pytest.importorskip("gradio", reason="needs the extra web")
pytest.importorskip("sqlalchemy", reason="needs the extra jobs")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

from fastapi import FastAPI  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from mien.app.jobs.queue import Queue, open_queue  # noqa: E402
from mien.app.jobs.worker import Worker, run_requests  # noqa: E402
from mien.app.settings import JobSettings, Secret, Settings, TrustSettings, WebSettings  # noqa: E402
from mien.app.studio import Studio  # noqa: E402
from mien.app.web.acts import Acts, Answer, Set  # noqa: E402
from mien.app.web.desk import Desk, Desks  # noqa: E402
from mien.app.web.service import create_app  # noqa: E402
from mien.app.web.texts import DIRECTIONS, ERRORS, LANGUAGES, TEXTS, error_words  # noqa: E402
from mien.errors import NoFaceError  # noqa: E402


def face_png(seed: int = 2) -> bytes:
    """Somebody who does not exist."""
    (image,) = Studio().generate([seed], psi=0.5)
    file = io.BytesIO()
    image.resize((256, 256), PIL.Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()


def blank_png() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (200, 160), "grey").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def face() -> bytes:
    return face_png()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(jobs=JobSettings(folder=tmp_path_factory.mktemp("queue")), trust=TrustSettings(max_faces=3))


@pytest.fixture(scope="module")
def queue(settings: Settings) -> Queue:
    return open_queue(settings.jobs)


@pytest.fixture(scope="module")
def desks(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Desks:
    return Desks(Studio(), settings, tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def working(desks: Desks, queue: Queue, settings: Settings) -> Iterator[None]:
    worker = Worker(queue, run_requests(desks.studio, queue, settings), name="one", poll_s=0.02)
    thread = threading.Thread(target=worker.serve)
    thread.start()
    yield
    worker.stop()
    thread.join()


@pytest.fixture
def acts(desks: Desks, queue: Queue) -> Acts:
    return Acts(desks, queue, "en")


@pytest.fixture
def session(acts: Acts, face: bytes, request: pytest.FixtureRequest) -> str:
    name = str(request.node.name)
    assert "1 found" in words(list(acts.run(acts.open, name, face)))
    return name


def served(*args: Any) -> FastAPI:
    """Build the service where a loop runs: Gradio would open one of its own, and never close it."""

    async def build() -> FastAPI:
        return create_app(*args)

    return asyncio.run(build())


def words(answers: list[Answer]) -> str:
    return " ".join(str(answer["status"]) for answer in answers if "status" in answer)


def value(answers: list[Answer], part: str) -> Any:
    found = [answer[part] for answer in answers if part in answer][-1]
    return found.props.get("value") if isinstance(found, Set) else found


# ---- Texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [TEXTS, DIRECTIONS], ids=["texts", "directions"])
def test_texts_are_complete_in_every_language(texts: dict[str, tuple[str, ...]]) -> None:
    for key, said in texts.items():
        assert len(said) == len(LANGUAGES) and all(said), key
        fields = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in said]
        assert fields[0] == fields[1], key
        assert any("а" <= letter <= "я" for letter in said[1].lower()), key


def test_errors_are_russian_on_the_russian_page() -> None:
    assert error_words("ru", NoFaceError("no face found", hint="x"))[0] == ERRORS[NoFaceError][0]
    assert error_words("en", NoFaceError("no <face>", hint="try"))[0] == "No &lt;face&gt;"


# ---- Acts ------------------------------------------------------------------------------------------------------------


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
    assert "nobody has a weight" in words(list(acts.run(acts.blend, session, [face_png(9)], 0, 0, 1, 1))).lower()


@pytest.mark.slow
def test_what_the_queue_does(acts: Acts, session: str, working: None, face: bytes) -> None:
    desk = acts.desks.of(session)
    tries: dict[str, Any] = {
        "express": acts.run(acts.express, session, "happiness", 1.0, None),
        "swap": acts.run(acts.swap, session, face_png(9)),
        "drag": None,
        "stylize": acts.run(acts.stylize, session, face_png(9), 0.5),
    }
    for name, answers in tries.items():
        if name == "drag":
            list(acts.run(acts.point, session, 100.0, 150.0))
            list(acts.run(acts.point, session, 110.0, 150.0))
            answers = acts.run(acts.drag, session)
        before, told = desk.now.photo.tobytes(), words(list(answers))
        assert "Done" in told and desk.now.photo.tobytes() != before, (name, told)
    assert acts.queue.jobs(desk.user) == [], "nothing of it stays in the queue"


def test_a_job_can_be_stopped(acts: Acts, session: str) -> None:
    desk = acts.desks.of(session)
    answers = acts.run(acts.swap, session, face_png(9))
    first = next(answers)
    assert "In the queue: number 1" in first["status"] and desk.job
    list(acts.run(acts.cancel, session))
    assert "Stopped" in words(list(answers))


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


@pytest.mark.parametrize("name", ["edit", "undo", "reset", "recipe", "drag", "swap", "stylize", "express", "style"])
def test_without_a_photo_every_tool_says_so(acts: Acts, name: str) -> None:
    given = {"edit": (0.0,) * 3, "swap": (b"x",), "stylize": (b"x", 0.5), "express": ("anger", 1, None)}
    told = words(
        list(acts.run(getattr(acts, name), "nobody", *given.get(name, (None, 1, 1, False)[: 4 * (name == "style")])))
    )
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


# ---- The service -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(desks: Desks, queue: Queue, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    service = served(desks.studio, queue, settings, tmp_path_factory.mktemp("page"))
    return TestClient(service, raise_server_exceptions=False)


def test_the_page_is_served_in_the_visitors_language(client: TestClient) -> None:
    for asked, lang in (("ru-RU,ru", "ru"), ("en-GB", "en"), ("fr", "en"), ("", "en")):
        found = client.get("/", headers={"accept-language": asked}, follow_redirects=False)
        assert found.headers["location"] == f"/{lang}/"
    assert TEXTS["tagline"][1] in client.get("/ru/config").text


def test_health_and_metrics(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    assert 'mien_jobs{state="queued"} 0' in client.get("/metrics").text
    assert "/api/jobs" in client.get("/openapi.json").json()["paths"]


def test_a_job_by_the_api(client: TestClient, face: bytes) -> None:
    request = {"op": "change", "operations": [{"op": "edit", "strengths": {"smile": 1.0}}], "method": "encoder"}
    made = client.post("/api/jobs", data={"request": json.dumps(request)}, files=[("pictures", ("../x", face))])
    assert made.status_code == 202 and made.json()["position"] == 1
    job = made.json()["id"]
    assert client.get(f"/api/jobs/{job}").json()["state"] == "queued"
    assert client.get(f"/api/jobs/{job}/results/0").status_code == 404
    assert client.post(f"/api/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    assert client.delete("/api/me").json() == {"deleted": 0}


@pytest.mark.parametrize(
    ("request_", "status"),
    [("{", 422), ("[]", 422), ('{"op": "steal"}', 422), ('{"op": "generate", "seeds": [1], "network": "x"}', 422)],
)
def test_bad_requests_are_told(client: TestClient, request_: str, status: int) -> None:
    answer = client.post("/api/jobs", data={"request": request_})
    assert answer.status_code == status and set(answer.json()) == {"error", "hint"}


def test_what_is_no_picture_is_refused(client: TestClient) -> None:
    request = json.dumps({"op": "change", "operations": [{"op": "edit", "strengths": {"smile": 1.0}}]})
    answer = client.post("/api/jobs", data={"request": request}, files=[("pictures", ("a.png", b"hello"))])
    assert answer.status_code == 415 and "no picture" in answer.json()["error"]


def test_keys(desks: Desks, queue: Queue, tmp_path: Path) -> None:
    from mien.app.web.api import add_api

    service = FastAPI()
    add_api(service, queue, Settings(web=WebSettings(api_keys=Secret("first second"))))
    client, data = TestClient(service), {"request": '{"op": "generate", "seeds": [1]}'}
    assert client.post("/api/jobs", data=data).status_code == 403
    made = client.post("/api/jobs", data=data, headers={"authorization": "Bearer first"})
    path = f"/api/jobs/{made.json()['id']}"
    assert client.get(path, headers={"authorization": "Bearer second"}).status_code == 404
    assert client.delete(path, headers={"authorization": "Bearer first"}).status_code == 204


def test_a_network_that_is_missing(queue: Queue, settings: Settings, tmp_path: Path, face: bytes) -> None:
    desks = Desks(Studio("nosuch"), settings, tmp_path)
    acts = Acts(desks, queue, "en")
    assert "nosuch" in words(list(acts.run(acts.open, "a", face)))
    served(desks.studio, queue, settings, tmp_path)
