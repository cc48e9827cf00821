"""The page in a real Chromium without a screen: from a photo to a download, and what is said when that cannot be."""

from __future__ import annotations

import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("gradio", reason="needs the extra web")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra web")

CHROMIUM = os.environ.get("MIEN_CHROMIUM") or shutil.which("chromium") or ""
WAIT_MS = 90_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium; MIEN_CHROMIUM says where it is"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def serving(network: str, folder: Path) -> Iterator[str]:
    """Serve the page, with a worker, and yield its address."""
    from mien.app.jobs.queue import open_queue
    from mien.app.jobs.worker import Worker, run_requests
    from mien.app.settings import JobSettings, Settings
    from mien.app.studio import Studio
    from mien.app.web.service import create_app

    settings = Settings(jobs=JobSettings(folder=folder / "queue"))
    queue, studio = open_queue(settings.jobs), Studio(network)
    service = create_app(studio, queue, settings, folder / "files")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(service, port=port, log_level="error", timeout_graceful_shutdown=1))
    ends: list[Callable[[], Any]] = []
    threads = [threading.Thread(target=server.run)]
    if network == "faces-64":
        worker = Worker(queue, run_requests(Studio(network), queue, settings), name="one")
        threads.append(threading.Thread(target=worker.serve))
        ends.append(worker.stop)
    for thread in threads:
        thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    for end in ends:
        end()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving("faces-64", tmp_path_factory.mktemp("web")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(WAIT_MS)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mien.app.studio import Studio

    path = tmp_path_factory.mktemp("face") / "somebody.png"
    Studio().generate([2], psi=0.5)[0].resize((320, 320), PIL.Image.Resampling.LANCZOS).save(path)
    return path


def put_in(page: Any, path: Path) -> str:
    """Give the page a photo, and return what it says."""
    page.wait_for_selector("#drop input[type=file]", state="attached")
    page.set_input_files("#drop input[type=file]", path)
    page.wait_for_selector(".told.good, .told.bad")
    return str(page.inner_text("#status"))


def slide(page: Any, name: str, part: float) -> None:
    """Drag a slider to a part of its way and let go."""
    box = page.locator(f"#set-{name} input[type=range]").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * part, y, steps=4)
    page.mouse.up()


def download(page: Any) -> PIL.Image.Image:
    with page.expect_download() as caught:
        page.click("#download")
    data = Path(caught.value.path()).read_bytes()
    assert b"TrainedAlgorithmicMedia" in data
    return PIL.Image.open(io.BytesIO(data)).convert("RGB")


def test_drop_edit_download(page: Any, address: str, face: Path) -> None:
    page.goto(f"{address}/en/")
    assert "1 found" in put_in(page, face)
    slide(page, "smile", 0.9)
    page.wait_for_selector("text=Done: adjust")
    page.wait_for_timeout(1500)
    changed = download(page)
    before = PIL.Image.open(face).convert("RGB")
    assert changed.size == before.size and changed.tobytes() != before.tobytes()
    page.click("#undo")
    page.wait_for_selector("text=One step back")


def test_an_expression_goes_through_the_queue(page: Any, address: str, face: Path) -> None:
    page.goto(f"{address}/en/")
    put_in(page, face)
    page.get_by_role("tab", name="Mood").click()
    page.click("#express-button")
    page.wait_for_selector("text=Done: mood")


def test_a_photo_without_a_face(page: Any, address: str, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (300, 200), "grey").save(tmp_path / "wall.png")
    page.goto(f"{address}/en/")
    told = put_in(page, tmp_path / "wall.png")
    assert "No face found" in told and "Traceback" not in page.inner_text("body")


def test_russian(browser: Any, address: str, tmp_path: Path, face: Path) -> None:
    context = browser.new_context(locale="ru-RU", viewport={"width": 390, "height": 800})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(address)
    assert page.url.endswith("/ru/")
    assert "Найдено лиц: 1" in put_in(page, face)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "it fits a telephone"
    context.close()


def test_a_missing_network(page: Any, face: Path, tmp_path: Path) -> None:
    with serving("nosuch", tmp_path) as address:
        page.goto(f"{address}/en/")
        told = put_in(page, face)
    assert "nosuch" in told and "Traceback" not in told
