"""The bot against a small Telegram over HTTP: what users see, whoever is killed and whatever Telegram answers."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

pytest.importorskip("sqlalchemy", reason="needs the extra jobs")
pytest.importorskip("aiogram", reason="needs the extra bot")

from mien.app import bot_talk
from mien.app.bot import serve
from mien.app.bot_texts import COMMANDS, TEXTS
from mien.app.jobs import Queue, open_queue
from mien.app.jobs_record import Job
from mien.app.settings import BotSettings, JobSettings, Secret, Settings
from mien.app.worker import Worker
from mien.report import Sink, Step

from .telegram import TOKEN, Telegram, buttons


def png(size: tuple[int, int] = (64, 48), colour: str = "red") -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


RESULT = png(colour="blue")


def wait_for(what: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    until_s = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < until_s, "it does not happen"
        time.sleep(0.02)
    return found


@pytest.fixture
def telegram() -> Iterator[Telegram]:
    with Telegram() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, telegram: Telegram) -> Settings:
    jobs = JobSettings(folder=tmp_path / "queue", lease_s=5.0, retry_delay_s=0.0)
    return Settings(jobs=jobs, bot=BotSettings(token=Secret(TOKEN), api_url=telegram.url, drain_s=5.0))


@pytest.fixture
def queue(settings: Settings) -> Queue:
    return open_queue(settings.jobs)


@contextmanager
def running(settings: Settings) -> Iterator[None]:
    """A bot in a thread, with an event loop of its own."""
    stop, loops, errors = [], [], []
    started = threading.Event()

    async def main() -> None:
        stop.append(asyncio.Event())
        loops.append(asyncio.get_running_loop())
        started.set()
        await serve(settings, stop[0])

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as err:
            errors.append(err)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(10)
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(stop[0].set)
        thread.join(30)
        assert not thread.is_alive()
        if errors:
            raise errors[0]


@contextmanager
def working(queue: Queue, run: Callable[[Job, Sink], Any]) -> Iterator[None]:
    worker = Worker(queue, run, name="w", poll_s=0.02)
    thread = threading.Thread(target=worker.serve)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        worker.stop()
        thread.join(30)


def paint(job: Job, on_step: Sink) -> Any:
    on_step(Step("toy", 0, 1))
    return [RESULT], []


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot_talk, "admit", lambda data, **_: [])


def test_every_text_is_there_in_both_languages() -> None:
    import string

    for texts in (TEXTS, COMMANDS):
        for name, by_lang in texts.items():
            assert sorted(by_lang) == ["en", "ru"] and all(by_lang.values()), name
            fields = [
                {field for _, field, _, _ in string.Formatter().parse(text) if field} for text in by_lang.values()
            ]
            assert fields[0] == fields[1], name
            assert any("а" <= letter <= "я" for letter in by_lang["ru"].lower()), name


def test_from_a_photo_to_its_answer(telegram: Telegram, settings: Settings, queue: Queue) -> None:
    with running(settings), working(queue, paint):
        photo = telegram.photo(7, png())
        menu = wait_for(lambda: telegram.of_bot(7))[0]
        assert menu["reply_to_message"]["message_id"] == photo["message_id"] and "Every face" in menu["text"]
        assert buttons(menu) == ["o:smile", "o:age", "o:yaw", "o:style"]
        telegram.press(7, menu["message_id"], "o:smile")
        asked = wait_for(lambda: [m for m in telegram.of_bot(7) if "d:smile:1.5" in buttons(m)])[0]
        telegram.press(7, asked["message_id"], "d:smile:1.5")
        (result,) = wait_for(lambda: telegram.results(7))
        assert len(telegram.of_bot(7)) == 1 and result["message_id"] == menu["message_id"]
        assert telegram.files[result["photo"][-1]["file_id"]] == RESULT
        assert result["caption"] == "Done: 😊 Smile +1.5. Made by a machine." and buttons(result) == ["m", "n"]
        wait_for(lambda: not queue.jobs(user="tg:7"))
    (job,) = queue.jobs()
    assert job.user == "" and not job.has_files and job.delivered_s
    assert not list((settings.jobs.folder / "pictures").glob("*/*"))
