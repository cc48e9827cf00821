"""The bot against a small Telegram over HTTP: what users see, whoever is killed and whatever Telegram answers."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

pytest.importorskip("sqlalchemy", reason="needs the extra jobs")
pytest.importorskip("aiogram", reason="needs the extra bot")

from mien.app.bot import courier, talk
from mien.app.bot.menu import EDITS, FEW, MANY, Wish, cancel, choices, drawings, menu, options, wish_of
from mien.app.bot.notes import BotNotes
from mien.app.bot.service import serve
from mien.app.bot.talk import Allowance
from mien.app.bot.texts import COMMANDS, TEXTS, Words
from mien.app.jobs.queue import Queue, open_queue
from mien.app.jobs.record import Job
from mien.app.jobs.requests import check
from mien.app.jobs.worker import Worker
from mien.app.settings import BotSettings, JobSettings, Secret, Settings
from mien.app.trust.gate import admit
from mien.errors import InputError
from mien.report import Sink, Step

from .telegram import TOKEN, Telegram, buttons


def png(size: tuple[int, int] = (64, 48), colour: str = "red") -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


RESULT = png(colour="blue")


def wait_for(what: Callable[[], Any], timeout_s: float = 200.0) -> Any:
    """Wait for what must happen; how soon is measured elsewhere, on a machine that has time."""
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
    assert started.wait(100)
    try:
        yield
    finally:
        if thread.is_alive():
            loops[0].call_soon_threadsafe(stop[0].set)
        thread.join(100)
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
        thread.join(100)


def paint(job: Job, on_step: Sink) -> Any:
    on_step(Step("toy", 0, 1))
    return [RESULT], []


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "admit", lambda data, **_: [])


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
        assert buttons(menu) == ["o:toon", "o:smile", "o:age", "o:yaw", "o:style"]
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


def the_menu(telegram: Telegram, chat: int, count: int = 1) -> dict[str, Any]:
    """The newest of a chat's menus, once it has so many messages of the bot."""
    return wait_for(lambda: len(found := telegram.of_bot(chat)) >= count and found)[-1]


def said(telegram: Telegram, chat: int, count: int = 1) -> str:
    """What the bot said last, once it has said so much."""
    return str(the_menu(telegram, chat, count).get("text"))


def test_every_wish_is_a_request_that_the_queue_takes() -> None:
    for num, names in ((1, FEW), (2, MANY)):
        for name in names:
            for value in choices(name) or [""]:
                wish = Wish(name, value)
                assert wish.is_complete and wish.num_photos == num and check(wish.request("encoder"), num).label
                for lang in ("en", "ru"):
                    assert wish.title(Words(lang))
    asked = [row for name in (*FEW, *MANY) for row in options(name, Words("ru"))]
    for row in [*menu(2, Words("ru")), *asked, *cancel("f" * 32, Words("ru"))]:
        assert all(label and len(data.encode()) <= 64 for label, data in row)


def test_drawings_are_those_of_the_package(telegram: Telegram, settings: Settings, queue: Queue) -> None:
    """A cartoon is the first button, and a part of /style; what draws is asked of the package."""
    seen: list[dict[str, Any]] = []

    def run(job: Job, on_step: Sink) -> Any:
        seen.append(dict(job.request))
        return [RESULT], []

    first = drawings()[0]
    with running(settings), working(queue, run):
        telegram.photo(5, png())
        telegram.press(5, the_menu(telegram, 5)["message_id"], "o:toon")
        asked = wait_for(lambda: [m for m in telegram.of_bot(5) if f"d:toon:{first}" in buttons(m)])[0]
        telegram.press(5, asked["message_id"], f"d:toon:{first}")
        (result,) = wait_for(lambda: telegram.results(5))
        assert result["caption"].startswith("Done: 🖍 Cartoon")
        telegram.photo(6, png(), caption="/style")
        assert {f"d:toon:{name}" for name in drawings()} < set(buttons(the_menu(telegram, 6)))
    assert seen == [{"op": "toonify", "style": first}]


def test_a_film_is_sent_as_a_video(telegram: Telegram, settings: Settings, queue: Queue) -> None:
    film = b"\0\0\0\x20ftypisom" + bytes(50)
    with running(settings), working(queue, lambda job, on_step: ([film], [])):
        first = telegram.photo(5, png())
        telegram.photo(5, png(), caption="/morph film", reply_to_message=first)
        (result,) = wait_for(lambda: telegram.results(5))
        assert telegram.files[result["video"]["file_id"]] == film and buttons(result) == ["m"]
        telegram.press(5, result["message_id"], "m")
        assert "d:swap:" not in buttons(the_menu(telegram, 5, 3)), "the photo's menu is a message of its own"


@pytest.mark.parametrize("value", ["9", "nan", "much", "-inf", "1e999", "٣", "1;2"])
def test_a_number_that_is_none(value: str) -> None:
    if value == "٣":
        assert wish_of("smile", value) == Wish("smile", "3")
        return
    with pytest.raises(InputError, match="smile takes a number"):
        wish_of("smile", value)


def test_moves_have_directions_in_the_bundle() -> None:
    from safetensors import safe_open

    import mien

    path = Path(mien.__file__).parent / "bundle" / "directions-faces-64.safetensors"
    with safe_open(str(path), "pt") as file:
        assert set(EDITS) <= set(file.keys())


def test_commands_in_both_languages(telegram: Telegram, settings: Settings) -> None:
    with running(settings):
        for user, lang in ((1, "en"), (2, "ru-RU")):
            for i, name in enumerate(("start", "help", "privacy", "delete", "smile", "morph", "start@mien_bot")):
                telegram.write(user, lang, text=f"/{name}")
                wait_for(lambda count=i + 1, user=user: len(telegram.of_bot(user)) == count)
        english, russian = ([m["text"] for m in telegram.of_bot(user)] for user in (1, 2))
    assert "agreed to it" in english[0] and "/morph" in english[1] and "20 MB" in english[1]
    assert "deleted when the work ends" in english[2] and english[3].startswith("Deleted.") and "0." in english[3]
    assert "/smile written under it" in english[4] and "two photos" in english[5] and english[6] == english[0]
    assert "согласны" in russian[0] and "20 МБ" in russian[1] and "альбомом" in russian[5]
    menus = [data for _, method, data in telegram.calls if method == "setMyCommands"]
    assert [m.get("language_code") for m in menus] == [None, "ru"]
    wanted = ["toon", "style", "smile", "age", "swap", "blend", "morph", "help", "privacy", "delete"]
    assert all([c["command"] for c in m["commands"]] == wanted for m in menus)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ({"text": "hello"}, "photos and commands only"),
        ({"text": "/nonsense"}, "photos and commands only"),
        ({"text": "/smile 99"}, "a number from -5 to 5"),
        ({"location": {"latitude": 1.0, "longitude": 2.0}}, "photos and commands only"),
        ({"dice": {"emoji": "🎲", "value": 3}}, "photos and commands only"),
        ({"contact": {"phone_number": "1", "first_name": "<b>{x}</b>"}}, "photos and commands only"),
        ({"text": "{0.__class__} %s <a href='x'>"}, "photos and commands only"),
    ],
)
def test_what_is_no_photo_is_answered_kindly(
    telegram: Telegram, settings: Settings, content: dict[str, Any], answer: str
) -> None:
    with running(settings):
        telegram.write(5, **content)
        assert answer in said(telegram, 5)


def test_documents(telegram: Telegram, settings: Settings, queue: Queue) -> None:
    """A hostile name goes nowhere; a file is answered with a file; what is too large is explained."""
    with running(settings), working(queue, paint):
        telegram.document(5, png(), name="../../etc/passwd\0\n{0}<b>.png", caption="/age -1")
        (result,) = wait_for(lambda: telegram.results(5))
        assert "photo" not in result and telegram.files[result["document"]["file_id"]] == RESULT
        telegram.document(6, b"MZ", name="virus.exe", mime="application/x-dosexec")
        assert "JPEG, PNG" in said(telegram, 6)
        large = telegram.document(7, b"x")
        large["document"]["file_size"] = 30 << 20
        assert "30 MB" in said(telegram, 7) and "20 MB" in said(telegram, 7)
        telegram.document(8, b"x" * ((20 << 20) + 1), caption="/age 1")["document"].pop("file_size")
        wait_for(lambda: "20 MB" in said(telegram, 8))
    fetched = [data["file_id"] for _, method, data in telegram.calls if method == "getFile"]
    assert len(fetched) == 2
    assert sorted(path.name for path in settings.jobs.folder.parent.iterdir()) == ["queue"]


def test_an_album_is_one_thing(telegram: Telegram, settings: Settings, queue: Queue) -> None:
    """Three photos have one menu and three answers, each as a reply to its own; two can be swapped."""
    seen: list[tuple[str, int]] = []

    def run(job: Job, on_step: Sink) -> Any:
        seen.append((str(job.request["op"]), len(job.inputs)))
        return [RESULT], []

    with running(settings), working(queue, run):
        photos = [telegram.photo(5, png(), media_group_id="g") for _ in range(3)]
        assert said(telegram, 5).startswith("3 photos")
        telegram.press(5, the_menu(telegram, 5)["message_id"], "d:smile:3")
        results = wait_for(lambda: len(found := telegram.results(5)) == 3 and found)
        sources = sorted(m["reply_to_message"]["message_id"] for m in results)
        assert sources == [photo["message_id"] for photo in photos] and len(telegram.of_bot(5)) == 3
        for i in range(2):
            telegram.photo(6, png(), media_group_id="h", **({"caption": "/swap"} if i else {}))
        wait_for(lambda: telegram.results(6))
        telegram.photo(7, png(), caption="/swap")
        assert "two photos" in said(telegram, 7)
        first = telegram.photo(8, png())
        telegram.photo(8, png(), caption="/morph strip", reply_to_message=first)
        wait_for(lambda: telegram.results(8))
    assert seen == [("change", 1)] * 3 + [("swap", 2), ("morph", 2)]


def test_a_result_is_where_the_next_wish_begins(telegram: Telegram, settings: Settings, queue: Queue) -> None:
    with running(settings), working(queue, paint):
        photo = telegram.photo(5, png(), caption="/smile 1")
        (result,) = wait_for(lambda: telegram.results(5))
        telegram.press(5, result["message_id"], "m")
        assert the_menu(telegram, 5, 2)["reply_to_message"]["message_id"] == photo["message_id"]
        telegram.press(5, result["message_id"], "n")
        onward = the_menu(telegram, 5, 3)
        assert onward["reply_to_message"]["message_id"] == result["message_id"]
        telegram.press(5, onward["message_id"], "d:age:1.5")
        wait_for(lambda: len(telegram.results(5)) == 2)


def test_a_job_can_be_watched_and_cancelled(
    telegram: Telegram, settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "EDIT_S", 0.3)
    go_on = threading.Event()

    def run(job: Job, on_step: Sink) -> Any:
        while not go_on.wait(0.05):
            on_step(Step("toy", 1, 10))
        return [RESULT], []

    with running(settings):
        telegram.photo(5, png(), caption="/smile 1")
        wait_for(lambda: said(telegram, 5).startswith("In the queue, place 1. Nobody works"))
        telegram.photo(6, png(), lang="ru", caption="/smile 1")
        waiting = wait_for(lambda: [m for m in telegram.of_bot(6) if "место 2" in m["text"]])[0]
        telegram.press(7, telegram.write(7, text="x")["message_id"], buttons(waiting)[0])
        wait_for(lambda: [a for a in telegram.answers if a.get("text") == "It is over already."])
        telegram.press(6, waiting["message_id"], buttons(waiting)[0], lang="ru")
        wait_for(lambda: said(telegram, 6).startswith("Отменено"))
        with working(queue, run):
            running_ = wait_for(lambda: [m for m in telegram.of_bot(5) if m["text"].startswith("Working")])[0]
            telegram.press(5, running_["message_id"], buttons(running_)[0])
            wait_for(lambda: said(telegram, 5).startswith("Cancelled"))
            assert buttons(telegram.of_bot(5)[0]) == ["m"]
            go_on.set()
    edits = [(at, data["chat_id"]) for at, method, data in telegram.calls if method == "editMessageText"]
    assert len(edits) < 12


@pytest.mark.parametrize(
    ("err", "lang", "text"),
    [
        (
            InputError("no face found", hint="try a larger, frontal photo"),
            "en",
            "no face found.\nWhat helps: try a larger",
        ),
        (InputError("no face found", hint="or a lower --min-score"), "en", "That did not work: no face found."),
        (InputError("no face found"), "ru", "Не получилось: на фото не видно лица."),
        (InputError("something new"), "ru", "с этим фото так не выходит"),
        (ValueError("tg:5 sent a.jpg"), "en", "something broke on our side"),
    ],
)
def test_errors_are_told_in_words(
    telegram: Telegram, settings: Settings, queue: Queue, err: Exception, lang: str, text: str
) -> None:
    def run(job: Job, on_step: Sink) -> Any:
        raise err

    with running(settings), working(queue, run):
        telegram.photo(5, png(), lang=lang, caption="/smile 1")
        wait_for(lambda: text in said(telegram, 5))
    assert len(telegram.of_bot(5)) == 1


def test_pictures_that_are_none(
    telegram: Telegram, settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused by the door, before they come into the queue."""
    monkeypatch.setattr(talk, "admit", admit)
    with running(settings):
        telegram.document(5, b"no picture at all", caption="/smile 1")
        wait_for(lambda: "the file is no picture" in said(telegram, 5))
        telegram.document(6, png()[:60], caption="/smile 1")
        wait_for(lambda: "That did not work" in said(telegram, 6))
        telegram.photo(7, png(), caption="/smile 1", lang="ru")
        wait_for(lambda: queue.jobs(user="tg:7"))
    assert len(queue.jobs()) == 1


def test_data_of_buttons_is_not_believed(telegram: Telegram, settings: Settings, queue: Queue) -> None:
    hostile = [
        "",
        "x:",
        "x:" + "../" * 9,
        "d:",
        "d:smile:",
        "d:smile:nan",
        "d:exec:1",
        "d:swap:",
        "o:__class__",
        "z",
        "m:m",
    ]
    with running(settings):
        telegram.photo(5, png())
        number = the_menu(telegram, 5)["message_id"]
        for data in hostile:
            telegram.press(5, number, data)
        wait_for(lambda: len(telegram.answers) == len(hostile))
        telegram.messages[5, number].pop("reply_to_message")
        telegram.press(5, number, "d:smile:1")
        wait_for(lambda: len(telegram.answers) == len(hostile) + 1)
    assert "send it again" in telegram.answers[-1]["text"] and not queue.jobs()


def test_a_flood_is_slowed_down(telegram: Telegram, settings: Settings) -> None:
    settings = replace(settings, bot=replace(settings.bot, per_minute=5))
    with running(settings):
        for _ in range(40):
            telegram.write(5, text="hello")
        telegram.write(6, text="hello")
        wait_for(lambda: telegram.of_bot(6) and not telegram.updates)
        texts = [m["text"] for m in telegram.of_bot(5)]
    assert len(texts) == 6 and sum("Not so fast" in text for text in texts) == 1


def test_an_allowance_comes_back() -> None:
    now = [0.0]
    allowance = Allowance(6, lambda: now[0])
    assert [allowance.take(1) > 0 for _ in range(7)] == [False] * 6 + [True] and allowance.take(2) == 0
    assert allowance.take(1) == pytest.approx(10.0)
    now[0] = 10.0
    assert allowance.take(1) == 0 and allowance.take(1) > 0
    assert allowance.is_to_tell(1) and not allowance.is_to_tell(1)


def test_deleted_data_is_gone(telegram: Telegram, settings: Settings, queue: Queue) -> None:
    with running(settings):
        for _ in range(2):
            telegram.photo(5, png(), media_group_id="h")
        telegram.photo(5, png(), caption="/smile 1")
        wait_for(lambda: queue.jobs(user="tg:5"))
        wait_for(lambda: BotNotes(queue.store, 123456).album(5, telegram.of_bot(5)[-1]["message_id"]))
        telegram.write(5, text="/delete")
        wait_for(lambda: [m for m in telegram.of_bot(5) if m.get("text", "").endswith("for you: 1.")])
    assert not queue.jobs(user="tg:5") and not list((settings.jobs.folder / "pictures").glob("*/*"))
    assert queue.store.look(lambda table: table.fact("tg:123456:albums")) == {}
