"""The page in a real Chromium without a screen: from a photo to a download, and what is said when that cannot be."""

from __future__ import annotations

import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mien.app.studio import Studio

from .conftest import QUICK

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra web")

CHROMIUM = os.environ.get("MIEN_CHROMIUM") or shutil.which("chromium") or ""
WAIT_MS = 120_000
FIRST_EDIT_S = 3.0
USERS = 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
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
    from mien.app.web.service import create_app

    settings = Settings(jobs=JobSettings(folder=folder / "queue"))
    queue, studio = open_queue(settings.jobs), Studio(network)
    service = create_app(studio, queue, settings, folder / "files", QUICK)
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


@contextmanager
def visiting(browser: Any, address: str, width: int = 1280, **options: Any) -> Iterator[Any]:
    """Open the page as a new visitor."""
    context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True, **options)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#drop input[type=file]", state="attached")
    yield page
    context.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with visiting(browser, f"{address}/en/") as found:
        yield found


@pytest.fixture(scope="module")
def visitor(browser: Any, address: str, face: Path) -> Iterator[Any]:
    """Somebody who has put in a photo, and does one thing after another."""
    with visiting(browser, f"{address}/en/") as found:
        assert "Faces found: 1" in put_in(found, face)
        yield found


def somebody(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.png"
    image = Studio().generate([seed], psi=0.5)[0]
    image.resize((256, 256), PIL.Image.Resampling.LANCZOS).save(path)
    return path


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return somebody(tmp_path_factory.mktemp("face"), 2)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return somebody(tmp_path_factory.mktemp("other"), 9)


def put_in(page: Any, path: Path) -> str:
    """Give the page a photo, and return what it says."""
    page.set_input_files("#drop input[type=file]", path)
    page.wait_for_selector(".told.good, .told.bad")
    return str(page.inner_text("#status"))


def go_to(page: Any, group: str, tool: str) -> None:
    """Open a tool by the words on its tabs."""
    page.get_by_role("tab", name=group, exact=True).click()
    page.get_by_role("tab", name=tool, exact=True).click()


def slide(page: Any, name: str, part: float) -> None:
    """Drag a slider to a part of its way and let go."""
    slider = page.locator(f"#set-{name} input[type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * part, y, steps=4)
    page.mouse.up()


def download(page: Any, button: str = "#download") -> bytes:
    with page.expect_download() as caught:
        page.click(button)
    return Path(caught.value.path()).read_bytes()


def pixels(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data)).convert("RGB")


def is_quiet() -> bool:
    """Whether nothing else takes this machine's time."""
    return os.getloadavg()[0] < (os.cpu_count() or 1)


# ---- The main tasks, from a photo to a download ---------------------------------------------------------------------


def choose(page: Any, field: str, path: Path) -> None:
    """Put a picture into a tool's field."""
    page.set_input_files(f"#{field} input[type=file]", path)
    page.wait_for_timeout(800)


def use_express(page: Any, other: Path) -> None:
    go_to(page, "Face", "Mood")


def use_style(page: Any, other: Path) -> None:
    go_to(page, "Face", "Style")


def use_drag(page: Any, other: Path) -> None:
    go_to(page, "Face", "Drag")
    picture = page.locator("#drag-face img")
    for place in ({"x": 100, "y": 150}, {"x": 115, "y": 145}):
        picture.click(position=place)
        page.wait_for_timeout(700)


def use_toonify(page: Any, other: Path) -> None:
    go_to(page, "Cartoon & paint", "Cartoon")


def use_stylize(page: Any, other: Path) -> None:
    go_to(page, "Cartoon & paint", "Paint")
    choose(page, "stylize-photo", other)


def use_swap(page: Any, other: Path) -> None:
    go_to(page, "People", "Swap")
    choose(page, "swap-photo", other)


def use_blend(page: Any, other: Path) -> None:
    go_to(page, "People", "Blend")
    choose(page, "blend-photos", other)
    page.wait_for_selector("#weight-1")


USES: dict[str, tuple[Callable[[Any, Path], None], str]] = {
    "express": (use_express, "mood"),
    "style": (use_style, "style"),
    "drag": (use_drag, "drag"),
    "toonify": (use_toonify, "cartoon"),
    "stylize": (use_stylize, "paint"),
    "swap": (use_swap, "swap"),
    "blend": (use_blend, "blend"),
}


def test_first_edit_and_undo(page: Any, face: Path) -> None:
    begin = time.monotonic()
    put_in(page, face)
    slide(page, "smile", 0.9)
    page.wait_for_selector("text=Done: adjust")
    took_s = time.monotonic() - begin
    page.wait_for_timeout(1500)
    data = download(page)
    changed, before = pixels(data), pixels(face.read_bytes())
    assert b"TrainedAlgorithmicMedia" in data
    assert changed.size == before.size and changed.tobytes() != before.tobytes()
    page.click("#undo")
    page.wait_for_selector("text=One step back")
    assert page.inner_text("#reset") == "Start again", "buttons keep their words"
    if is_quiet():
        assert took_s < FIRST_EDIT_S


@pytest.mark.parametrize("tool", USES)
def test_from_a_photo_to_a_download(visitor: Any, face: Path, other: Path, tool: str) -> None:
    visitor.click("#reset")
    visitor.wait_for_selector("text=This is the photo as it came")
    use, words = USES[tool]
    use(visitor, other)
    visitor.click(f"#{tool}-button")
    visitor.wait_for_selector(f"text=Done: {words}")
    visitor.wait_for_timeout(1500)
    data = download(visitor)
    assert b"TrainedAlgorithmicMedia" in data and pixels(data).tobytes() != pixels(face.read_bytes()).tobytes()


def test_a_morph_is_a_video(visitor: Any, other: Path) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    go_to(visitor, "People", "Morph")
    choose(visitor, "morph-photos", other)
    visitor.click("#morph-button")
    visitor.wait_for_selector("#made-view video")
    data = download(visitor, "#made-file")
    assert data[4:8] == b"ftyp" and b"trainedAlgorithmicMedia" in data


def test_a_recipe_is_done_again(visitor: Any, tmp_path: Path) -> None:
    visitor.click("#reset")
    visitor.wait_for_selector("text=This is the photo as it came")
    go_to(visitor, "Face", "Adjust")
    slide(visitor, "smile", 0.8)
    visitor.wait_for_selector("text=Done: adjust")
    visitor.wait_for_timeout(1500)
    changed = download(visitor)
    visitor.click("#write")
    visitor.wait_for_selector("#recipe a")
    with visitor.expect_download() as caught:
        visitor.locator("#recipe a").first.click()
    caught.value.save_as(tmp_path / "recipe.json")
    visitor.click("#reset")
    visitor.wait_for_selector("text=This is the photo as it came")
    go_to(visitor, "More", "Repeat")
    choose(visitor, "replay-file", tmp_path / "recipe.json")
    visitor.click("#replay-button")
    visitor.wait_for_selector("text=Done: repeat")
    visitor.wait_for_timeout(1500)
    assert pixels(download(visitor)).tobytes() == pixels(changed).tobytes()


# ---- Otherwise than planned -----------------------------------------------------------------------------------------


def test_a_photo_without_a_face_then_another(page: Any, face: Path, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (300, 200), "grey").save(tmp_path / "wall.png")
    told = put_in(page, tmp_path / "wall.png")
    assert "No face found" in told and "Traceback" not in page.inner_text("body")
    page.get_by_label("Clear").or_(page.get_by_label("Remove Image")).first.click()
    page.wait_for_selector("#drop input[type=file]", state="attached")
    page.set_input_files("#drop input[type=file]", face)
    page.wait_for_selector("text=Faces found: 1")
    page.click("#new")
    page.wait_for_selector("text=Put in a photo with a face")
    page.wait_for_selector("#drop input[type=file]", state="attached")
    assert "Faces found: 1" in put_in(page, face)


def test_reload_in_the_middle_of_a_job(page: Any, face: Path) -> None:
    put_in(page, face)
    go_to(page, "Cartoon & paint", "Cartoon")
    page.click("#toonify-button")
    page.wait_for_selector("#cancel, :text('Done: cartoon')")
    page.reload()
    page.wait_for_selector("#result")
    page.wait_for_selector("#history button >> nth=1")
    page.wait_for_selector(".told.good")


def test_by_keyboard(page: Any, face: Path) -> None:
    put_in(page, face)
    page.focus("#set-smile input[type=range]")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.focus("#edit-button")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Done: adjust")
    page.get_by_role("tab", name="Cartoon & paint", exact=True).focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("tab", name="Cartoon & paint").get_attribute("aria-selected") == "true"


def test_russian_on_a_telephone(browser: Any, address: str, face: Path, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (300, 200), "grey").save(tmp_path / "wall.png")
    with visiting(browser, address, 390, locale="ru-RU") as page:
        assert page.url.endswith("/ru/")
        assert "Найдено лиц: 1" in put_in(page, face)
        for group in ("Лицо", "Мультик и живопись", "Люди", "Ещё"):
            page.get_by_role("tab", name=group, exact=True).click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, "it fits a telephone"
        page.get_by_role("tab", name="Люди", exact=True).click()
        choose(page, "swap-photo", tmp_path / "wall.png")
        page.click("#swap-button")
        page.wait_for_selector("text=На снимке не найдено лицо")


def test_twenty_users_at_once(browser: Any, address: str, face: Path) -> None:
    with ExitStack() as stack:
        pages = [stack.enter_context(visiting(browser, f"{address}/en/")) for _ in range(USERS)]
        for page in pages:
            page.set_input_files("#drop input[type=file]", face)
        for page in pages:
            page.wait_for_selector("text=Faces found: 1")
            go_to(page, "Cartoon & paint", "Cartoon")
            page.click("#toonify-button")
        for page in pages:
            page.wait_for_selector("text=Done: cartoon")


def test_a_missing_network(browser: Any, face: Path, tmp_path: Path) -> None:
    with serving("nosuch", tmp_path) as address, visiting(browser, f"{address}/en/") as page:
        told = put_in(page, face)
    assert "nosuch" in told and "Traceback" not in told
