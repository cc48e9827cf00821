"""A visitor of the page without a browser: a generated face, a desk, a worker, and little to wait for."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import PIL.Image
import pytest

pytest.importorskip("gradio", reason="needs the extra web")
pytest.importorskip("sqlalchemy", reason="needs the extra jobs")

from mien.app.jobs.queue import Queue, open_queue
from mien.app.jobs.worker import Worker, run_requests
from mien.app.settings import JobSettings, Settings, TrustSettings
from mien.app.studio import Studio
from mien.app.web.acts import Acts
from mien.app.web.desks import Desks
from mien.app.web.errands import Effort
from mien.app.web.stage import Answer, Set, Wait

QUICK = Effort(swap_steps=2, drag_steps=4, paint_steps=2, paint_px=64, lab_steps=1, film_fps=3)


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
    return Acts(desks, queue, "en", QUICK)


@pytest.fixture
def session(acts: Acts, face: bytes, request: pytest.FixtureRequest) -> str:
    name = str(request.node.name)
    assert "found: 1" in words(list(acts.run(acts.open, name, face)))
    return name


def words(answers: Iterable[Answer | Wait]) -> str:
    """Everything that the page says in its line of status."""
    return " ".join(str(answer["status"]) for answer in answers if isinstance(answer, dict) and "status" in answer)


def value(answers: Iterable[Answer | Wait], part: str) -> Any:
    """What a part shows in the end."""
    found = [answer[part] for answer in answers if isinstance(answer, dict) and part in answer][-1]
    return found.props.get("value") if isinstance(found, Set) else found


def to_the_end(answers: Iterable[Answer | Wait]) -> list[Answer | Wait]:
    """Every answer of an act, which waits as long as it wants to."""
    found = []
    for answer in answers:
        if isinstance(answer, Wait):
            time.sleep(answer.seconds)
        found.append(answer)
    return found
