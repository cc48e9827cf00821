"""Tells users where their jobs are, and brings the results.

A job has one message in its chat. It says that the photo has come, then the place in the queue, at most every three
seconds, and in the end it *becomes* the answer: the picture is put into it (editMessageMedia). Doing that twice does no
harm, so that whoever is killed between telling and noting it down neither loses nor doubles an answer. Only where the
user has deleted that message is a new one sent; then, and only then, a kill at the wrong moment may double it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import secrets
import struct
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import PIL.Image
from aiogram import Bot
from aiogram.exceptions import (
    TelegramAPIError,
    TelegramBadRequest,
    TelegramEntityTooLarge,
    TelegramForbiddenError,
)
from aiogram.types import BufferedInputFile, InputMediaDocument, InputMediaPhoto, InputMediaVideo, ReplyParameters

from mien.app.bot.api import is_unchanged, keyboard
from mien.app.bot.menu import Buttons, cancel, more
from mien.app.bot.texts import Words
from mien.app.jobs.queue import Queue, Status
from mien.app.jobs.record import Job, NoJobError, State
from mien.app.settings import MarkSettings
from mien.app.trust.gate import seal
from mien.errors import MienError
from mien.marks import Origin

__all__ = ["Address", "Courier"]

EDIT_S, TICK_S, LOOK_S = 3.0, 0.5, 0.3
CARRY_S = 30.0  # then another bot brings a result whose bringer died; both do the same edit
MAX_EDITS_PER_S = 12  # of all users; Telegram allows thirty messages a second
MAX_AT_ONCE = 8
PHOTO_BYTES, FILE_BYTES, PHOTO_SIDES_PX, PHOTO_RATIO = 10 << 20, 50 << 20, 10_000, 20
CAPTION = 1000
MEDIA = {"photo": InputMediaPhoto, "video": InputMediaVideo, "document": InputMediaDocument}

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a job's answer belongs; `str` of it is the job's address in the queue.

    Attributes:
        bot: Telegram's number of the bot.
        chat: of the user.
        status: the message that becomes the answer.
        source: the message with the photo.
        kind: `photo` or `document`.
        lang: of the user.
        what: `name=value` of the wish.
    """

    bot: int
    chat: int
    status: int
    source: int
    kind: str
    lang: str
    what: str

    def __str__(self) -> str:
        parts = (self.bot, self.chat, self.status, self.source, self.kind, self.lang, self.what)
        return ":".join(map(str, ("tg", *parts)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote.

        >>> Address.parse(str(Address(1, 2, 3, 4, "photo", "en", "smile=1"))).status
        3
        """
        _, bot, chat, status, source, kind, lang, what = text.split(":", 7)
        return cls(int(bot), int(chat), int(status), int(source), kind, lang, what)

    @property
    def words(self) -> Words:
        """The texts for this user."""
        return Words(self.lang)


@dataclass
class _Live:
    """A job that is not over, and what its message says."""

    to: Address
    text: str = ""
    told_s: float = -1e9


async def apart(call: Callable[..., Result], *args: object) -> Result:
    """Call what blocks in a thread."""
    return await asyncio.to_thread(call, *args)


class Courier:
    """Brings news of jobs to their users.

    Args:
        bot: client.
        queue: of jobs.
        marks: of results that must be sealed anew because they are too large.
        title: what a wish `name=value` is called in the user's language.
    """

    def __init__(self, bot: Bot, queue: Queue, marks: MarkSettings, title: Callable[[str, Words], str]) -> None:
        self._bot, self._queue, self._marks, self._title = bot, queue, marks, title
        self._name, self._prefix = f"bot-{secrets.token_hex(8)}", f"tg:{bot.id}:"
        self._live: dict[str, _Live] = {}
        self._carried: dict[str, asyncio.Task[None]] = {}
        self._few = asyncio.Semaphore(MAX_AT_ONCE)
        self._news: set[asyncio.Task[None]] = set()

    # ---- For the talk ------------------------------------------------------------------------------------------------

    def watch(self, job: Job, to: Address) -> None:
        """Tell the user about a job until it is over."""
        self._live.setdefault(job.id, _Live(to))

    def is_doing(self, chat: int, source: int, what: str) -> bool:
        """Say whether this is being done for this photo already."""
        return any((one.to.chat, one.to.source, one.to.what) == (chat, source, what) for one in self._live.values())

    # ---- News --------------------------------------------------------------------------------------------------------

    async def tell(self, to: Address, text: str, buttons: Buttons | None = None) -> None:
        """Let a job's message say something."""
        try:
            await self._bot.edit_message_text(
                text=text, chat_id=to.chat, message_id=to.status, reply_markup=keyboard(buttons)
            )
        except TelegramForbiddenError:
            logger.info("a user has left")
        except TelegramBadRequest as err:
            if not is_unchanged(err):
                raise

    async def _tell_status(self, job_id: str, live: _Live) -> None:
        try:
            status = await apart(self._queue.status, job_id)
        except NoJobError:
            status = None
        if status is None or not status.job.has_files:  # deleted
            self._live.pop(job_id, None)
            return
        if status.job.state.is_over:
            return
        text = _news(status, live.to.words)
        if text != live.text:
            await self.tell(live.to, text, cancel(job_id, live.to.words))
            live.text = text

    async def _tell_all(self) -> None:
        """Edit the messages that are due: of each job every three seconds, of all of them so many as Telegram takes."""
        now = time.monotonic()
        due = sorted((one.told_s, job_id) for job_id, one in self._live.items() if now > one.told_s + EDIT_S)
        for _, job_id in due[: max(1, int(MAX_EDITS_PER_S * TICK_S))]:
            live = self._live[job_id]
            live.told_s = now
            task = asyncio.create_task(self._guarded(self._tell_status(job_id, live)))
            self._news.add(task)
            task.add_done_callback(self._news.discard)

    async def run(self) -> None:
        """Tell and bring until cancelled; a queue that is away for a while is waited for."""
        await asyncio.gather(
            self._forever(self._recover, once=True), self._forever(self._tell_all), self._forever(self._look)
        )

    async def _forever(self, step: Callable[[], Coroutine[Any, Any, None]], *, once: bool = False) -> None:
        while True:
            try:
                await step()
                if once:
                    return
            except MienError as err:
                logger.warning("%s", err.message)
            await asyncio.sleep(TICK_S if step == self._tell_all else LOOK_S)

    async def _recover(self) -> None:
        """Take up the jobs of the bot's earlier life."""
        for job in await apart(self._queue.jobs):
            if job.address.startswith(self._prefix) and not job.state.is_over:
                self.watch(job, Address.parse(job.address))

    # ---- Answers -----------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        for job in await asyncio.to_thread(self._queue.carry, self._name, self._prefix, carry_s=CARRY_S):
            if job.id not in self._carried:
                self._carried[job.id] = task = asyncio.create_task(self._guarded(self._bring(job)))
                task.add_done_callback(partial(self._forget, job.id))

    def _forget(self, job_id: str, _task: asyncio.Task[None]) -> None:
        self._carried.pop(job_id, None)

    async def _bring(self, job: Job) -> None:
        async with self._few:
            to = Address.parse(job.address)
            self._live.pop(job.id, None)
            if job.state == State.DONE:
                await self._bring_result(job, to)
            elif job.state == State.CANCELLED:
                await self._end(to, to.words("cancelled"))
            else:
                await self._end(to, to.words.error(job.message, job.hint))
            await apart(self._queue.delivered, job.id)
            logger.info("job %s: %s is delivered", job.id[:8], job.state.value)

    async def _end(self, to: Address, text: str) -> None:
        """Let the last message of a job that has no result be said."""
        try:
            await self.tell(to, text, [more(to.words)[0]])
        except TelegramBadRequest:
            await self._send_text(to, text)

    async def _send_text(self, to: Address, text: str) -> None:
        try:
            await self._bot.send_message(to.chat, text, reply_parameters=_reply(to))
        except (TelegramForbiddenError, TelegramBadRequest):
            logger.info("a user has left")

    async def _bring_result(self, job: Job, to: Address) -> None:
        try:
            data = (await apart(self._queue.results, job))[0]
        except MienError:
            await self._end(to, to.words("gone"))
            return
        said = [to.words("done", what=self._title(to.what, to.words)), *map(to.words.message, job.notes)]
        caption, kind = "\n".join(said)[:CAPTION], _kind(data, to.kind)
        name = "mien.mp4" if kind == "video" else "mien.png"
        if len(data) > FILE_BYTES and kind != "video":
            data, name, kind = await apart(_smaller, data, self._marks), "mien.jpg", "document"
        try:
            await self._put(to, BufferedInputFile(data, name), kind, caption)
        except TelegramForbiddenError:
            logger.info("a user has left")
        except (TelegramBadRequest, TelegramEntityTooLarge) as err:
            logger.warning("job %s: Telegram does not take the result: %s", job.id[:8], type(err).__name__)
            await self._send_text(to, to.words("broken"))

    async def _put(self, to: Address, file: BufferedInputFile, kind: str, caption: str) -> None:
        """Put a result into the job's message, or send it where that message is gone."""
        media = MEDIA[kind](media=file, caption=caption)
        buttons = keyboard(more(to.words, is_photo=kind != "video"))
        try:
            await self._bot.edit_message_media(media, chat_id=to.chat, message_id=to.status, reply_markup=buttons)
            return
        except TelegramBadRequest as err:
            if is_unchanged(err):
                return
            logger.info("a job's message cannot be changed: a new one is sent")
        senders = {"photo": self._bot.send_photo, "video": self._bot.send_video, "document": self._bot.send_document}
        options: dict[str, Any] = dict(caption=caption, reply_markup=buttons, reply_parameters=_reply(to))
        try:
            await senders[kind](to.chat, file, **options)  # type: ignore[operator]
        except TelegramBadRequest:
            if kind == "document":
                raise
            await self._bot.send_document(to.chat, file, **options)

    # ---- Tasks -------------------------------------------------------------------------------------------------------

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do one thing for one user; what fails is said in the log, and done again when its time comes."""
        try:
            await work
        except TelegramAPIError as err:
            logger.warning("%s: %s", type(err).__name__, err.message)
        except MienError as err:
            logger.warning("%s", err.message)

    async def drain(self) -> None:
        """Wait for what is being sent."""
        while tasks := [*self._carried.values(), *self._news]:
            await asyncio.wait(tasks)


def _news(status: Status, words: Words) -> str:
    job = status.job
    if job.state == State.RUNNING:
        return words("working") + words.left(status.left_s)
    if not status.num_workers:
        return words("no_worker", position=status.position)
    return words("waiting", position=status.position) + words.left(status.left_s)


def _reply(to: Address) -> ReplyParameters:
    return ReplyParameters(message_id=to.source, allow_sending_without_reply=True)


def _kind(data: bytes, wanted: str) -> str:
    """Say as what a result is sent: a film as a video, a picture as what came, where Telegram takes it as a photo."""
    if data[4:8] == b"ftyp":
        return "video"
    return "photo" if wanted == "photo" and _fits_photo(data) else "document"


def _fits_photo(data: bytes) -> bool:
    """Say whether Telegram takes a PNG as a photo, by its header."""
    if len(data) > PHOTO_BYTES or data[:4] != b"\x89PNG":
        return False
    width, height = struct.unpack(">II", data[16:24])
    return width + height <= PHOTO_SIDES_PX and max(width, height) <= PHOTO_RATIO * min(width, height)


def _smaller(data: bytes, marks: MarkSettings) -> bytes:
    """Seal a result that no bot may send once more, as JPEG; a photo was changed, wherever it comes from."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        return seal(image.convert("RGB"), Origin.CHANGED, marks, kind="jpeg")
