"""What the bot does when somebody writes to it or presses a button: it answers at once and puts work into the queue.

The talk has no memory: a menu is a reply to its photo, so that Telegram itself brings the photo back when a button is
pressed. Only albums are noted down. Nothing is computed here, and what blocks is called in threads.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiogram import Bot, Router
from aiogram.exceptions import TelegramAPIError, TelegramBadRequest, TelegramForbiddenError
from aiogram.types import CallbackQuery, ErrorEvent, Message, ReplyParameters, Update, User

from mien.app.bot.api import keyboard
from mien.app.bot.courier import Address, Courier, apart
from mien.app.bot.menu import FEW, LOW_HIGH, MANY, BadWishError, Buttons, Wish, menu, options, wish_of
from mien.app.bot.notes import BotNotes, Source
from mien.app.bot.texts import Words, words_of
from mien.app.jobs.queue import Queue
from mien.app.jobs.record import Job, NoJobError
from mien.app.settings import Settings
from mien.app.trust.gate import CONSENT, BlockList, admit
from mien.errors import MienError

__all__ = ["Allowance", "Talk"]

ALBUM_S = 0.6  # an album's photos come one by one; it is whole when none came for so long
MAX_DOWNLOADS, MAX_DECODERS = 8, 2
MAX_ALBUM = 10

logger = logging.getLogger(__name__)


class Allowance:
    """How many messages of a user are answered: so many at once, then as many as a minute brings.

    Args:
        per_minute: messages.
        clock: seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._now = per_minute, clock
        self._left: dict[int, tuple[float, float]] = {}  # user => messages left, when
        self._told: dict[int, float] = {}

    def take(self, user: int) -> float:
        """Take one message, and return how many seconds it is too early; 0 where it is not."""
        now = self._now()
        left, at_s = self._left.get(user, (float(self._per_minute), now))
        left = min(left + (now - at_s) * self._per_minute / 60, self._per_minute)
        is_free = left >= 1
        self._left[user] = (left - is_free, now)
        if len(self._left) > 10_000:
            self._left = {u: v for u, v in self._left.items() if v[1] > now - 60}
            self._told = {u: at for u, at in self._told.items() if at > now - 60}
        return 0.0 if is_free else (1 - left) * 60 / self._per_minute

    def is_to_tell(self, user: int) -> bool:
        """Say whether to tell a user who is too fast, which is done every ten seconds at most."""
        now = self._now()
        if now < self._told.get(user, -1e9) + 10:
            return False
        self._told[user] = now
        return True


@dataclass
class _Album:
    """Messages that belong together, and the end of their common answer."""

    messages: list[Message] = field(default_factory=list)
    end: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True)
class _Asking:
    """Who asks for something, where, in which words, and by which update."""

    user: int
    chat: int
    words: Words
    key: str
    update: int


class Talk:
    """Answers messages and buttons.

    Args:
        bot: client.
        queue: of jobs.
        settings: bounds.
        courier: brings the results.
        notes: albums.
        blocked: whom and what the operator refuses.
        check: of requests, `mien.app.jobs.requests.check`.
    """

    def __init__(
        self,
        bot: Bot,
        queue: Queue,
        settings: Settings,
        courier: Courier,
        notes: BotNotes,
        blocked: BlockList,
        check: Callable[[dict[str, Any], int], Any],
    ) -> None:
        self._bot, self._queue, self._settings, self._courier = bot, queue, settings, courier
        self._notes, self._blocked, self._check = notes, blocked, check
        self._allowance = Allowance(settings.bot.per_minute)
        self._albums: dict[tuple[int, str], _Album] = {}
        self._pressed: set[tuple[int, int, str]] = set()
        self._downloads, self._decoders = asyncio.Semaphore(MAX_DOWNLOADS), asyncio.Semaphore(MAX_DECODERS)

    def router(self) -> Router:
        """Return the handlers."""
        router = Router()
        router.message()(self._on_message)
        router.callback_query()(self._on_press)
        router.errors()(self._on_error)
        return router

    # ---- Messages ----------------------------------------------------------------------------------------------------

    async def _on_message(self, message: Message, event_update: Update) -> None:
        user = message.from_user
        if user is None or user.is_bot:
            return
        words = words_of(user.language_code)
        if message.chat.type != "private":
            if (message.text or "").startswith("/"):
                await self._say(message, words("private_only", name=str((await self._bot.me()).username)))
            return
        if not await self._may(user, message, words):
            return
        if message.media_group_id is None:
            await self._answer([message], words, event_update.update_id)
            return
        key = (message.chat.id, message.media_group_id)
        album = self._albums.setdefault(key, _Album())
        album.messages.append(message)
        if len(album.messages) > 1:
            await asyncio.wait([album.end])  # Telegram keeps this update until the album is answered
            return
        try:
            await self._whole(album)
            del self._albums[key]
            await self._answer(
                sorted(album.messages, key=lambda one: one.message_id)[:MAX_ALBUM], words, event_update.update_id
            )
        finally:
            self._albums.pop(key, None)
            album.end.set_result(None)

    async def _whole(self, album: _Album) -> None:
        known = 0
        while known < len(album.messages):
            known = len(album.messages)
            await asyncio.sleep(ALBUM_S)

    async def _may(self, user: User, message: Message | None, words: Words) -> bool:
        """Say whether a user may ask now; who is too fast is told so, not too often."""
        left_s = self._allowance.take(user.id)
        if left_s and message is not None and self._allowance.is_to_tell(user.id):
            count = self._settings.bot.per_minute
            await self._say(message, words("slower", count=count, left=max(1, round(left_s))))
        return not left_s

    async def _answer(self, messages: Sequence[Message], words: Words, update: int) -> None:
        """Answer a message, or the messages of an album."""
        first = messages[0]
        text = next((t for one in messages if (t := one.text or one.caption)), "")
        sources = [source for one in messages if (source := _source_of(one)) is not None]
        if len(messages) == 1 and first.reply_to_message is not None and text.startswith("/"):
            sources += [source] if (source := _source_of(first.reply_to_message)) is not None else []
        name, _, value = text.removeprefix("/").partition(" ")
        name = name.partition("@")[0].lower() if text.startswith("/") else ""
        if name in ("start", "help", "privacy", "delete") and not sources:
            await self._command(name, first, words)
            return
        try:
            wish = wish_of(name, value, num_photos=len(sources))
        except BadWishError:
            await self._say(first, words("bad_number", name=name, low=f"{LOW_HIGH[0]:g}", high=f"{LOW_HIGH[1]:g}"))
            return
        if not sources:
            unknown = "no_picture" if first.document or first.video or first.animation else "unknown"
            need = "need_two" if name in MANY else "need_photo"
            await self._say(first, words(unknown) if wish is None else words(need, name=name))
        elif large := [source for source in sources if source.num_bytes > self._max_bytes]:
            mb, max_mb = (f"{size / 2**20:.0f}" for size in (large[0].num_bytes, self._max_bytes))
            await self._say(first, words("too_large", mb=mb, max_mb=max_mb))
        elif wish is not None and wish.num_photos == 2 and len(sources) != 2:
            await self._say(first, words("need_two", name=name))
        else:
            user = first.from_user
            assert user is not None
            asking = _Asking(user.id, first.chat.id, words, f"message {first.message_id}", update)
            await self._offer(asking, sources, wish)

    @property
    def _max_bytes(self) -> int:
        return (
            min(self._settings.trust.max_bytes, 20 << 20)
            if not self._settings.bot.api_is_local
            else (self._settings.trust.max_bytes)
        )

    async def _command(self, name: str, message: Message, words: Words) -> None:
        if name == "delete":
            count = await apart(self._queue.delete_user_data, f"tg:{message.chat.id}")
            await apart(self._notes.forget, message.chat.id)
            await self._say(message, words("deleted", count=count))
        else:
            max_mb = self._max_bytes >> 20
            await self._say(message, words(name, consent=CONSENT[words.lang], max_mb=max_mb))

    async def _offer(self, asking: _Asking, sources: Sequence[Source], wish: Wish | None) -> None:
        """Begin what was wished for, or show what can be."""
        words = asking.words
        if wish is not None and wish.is_complete:
            await self._begin(asking, sources, wish, None)
            return
        shown = words("menu", consent=CONSENT[words.lang])
        if len(sources) > 1:
            shown = words("menu_many", count=len(sources), consent=CONSENT[words.lang])
        buttons = menu(len(sources), words)
        if wish is not None:
            shown, buttons = words("how_much", name=words(wish.name)), options(wish.name, words)
        message = await self._send_once(asking, "menu", shown, sources[0].message, buttons)
        if len(sources) > 1:
            await apart(self._notes.note_album, asking.chat, message, sources)

    async def _send_once(
        self, asking: _Asking, part: str, text: str, reply_to: int, buttons: Buttons | None = None
    ) -> int:
        """Send a message and return its number; what the bot's earlier life had sent stands."""
        if (known := self._notes.sent(asking.update, part)) is not None:
            return known
        sent = await self._bot.send_message(
            asking.chat, text, reply_parameters=_reply(reply_to), reply_markup=keyboard(buttons)
        )
        self._notes.note_sent(asking.update, part, sent.message_id)
        return sent.message_id

    async def _say(self, message: Message, text: str) -> None:
        """Answer with words, to whom still listens."""
        with suppress(TelegramForbiddenError):
            await self._bot.send_message(message.chat.id, text, reply_parameters=_reply(message.message_id))

    # ---- Buttons -----------------------------------------------------------------------------------------------------

    async def _on_press(self, press: CallbackQuery, event_update: Update) -> None:
        words, message = words_of(press.from_user.language_code), press.message
        if not await self._may(press.from_user, None, words):
            await self._reply_press(press, words("slower", count=self._settings.bot.per_minute, left=5))
            return
        action, _, rest = (press.data or "").partition(":")
        if action == "x":
            await self._cancel(press, rest, words)
            return
        if not isinstance(message, Message):  # older than Telegram remembers
            await self._reply_press(press, words("no_source"))
            return
        asking = _Asking(press.from_user.id, message.chat.id, words, f"press {press.id}", event_update.update_id)
        pressed = (asking.chat, message.message_id, action)
        if pressed in self._pressed:
            await self._reply_press(press, words("busy"))
            return
        self._pressed.add(pressed)
        try:
            await self._act(press, message, asking, action, rest)
        finally:
            self._pressed.discard(pressed)

    async def _act(self, press: CallbackQuery, message: Message, asking: _Asking, action: str, rest: str) -> None:
        words = asking.words
        if action == "n":
            sources = [source] if (source := _source_of(message)) is not None else []
        else:
            sources = await self._sources(message)
        if not sources:
            await self._reply_press(press, words("no_source"))
            return
        is_answer = message.text is None  # a result, to which buttons of another message belong
        name, _, value = rest.partition(":")
        if action in ("m", "n"):
            await self._reply_press(press)
            if is_answer:
                await self._offer(asking, sources, None)
            else:
                text = words("menu", consent=CONSENT[words.lang])
                await self._edit(message, text, menu(len(sources), words))
        elif action == "o" and (name in FEW or name in MANY):
            await self._reply_press(press)
            await self._edit(message, words("how_much", name=words(name)), options(name, words))
        elif action == "d":
            await self._press_do(press, message, asking, sources, name, value)
        else:
            await self._reply_press(press, words("no_source"))

    async def _press_do(
        self,
        press: CallbackQuery,
        message: Message,
        asking: _Asking,
        sources: Sequence[Source],
        name: str,
        value: str,
    ) -> None:
        try:
            wish = wish_of(name, value)
        except BadWishError:
            wish = None
        if wish is None or not wish.is_complete or (wish.num_photos == 2 and len(sources) != 2):
            await self._reply_press(press, asking.words("no_source"))
        elif self._courier.is_doing(asking.chat, sources[0].message, f"{wish.name}={wish.value}"):
            await self._reply_press(press, asking.words("busy"))
        else:
            await self._reply_press(press)
            await self._begin(asking, sources, wish, message.message_id)

    async def _sources(self, message: Message) -> list[Source]:
        """Return the photos that a menu is about: an album's, or the one that it is a reply to."""
        album = await apart(self._notes.album, message.chat.id, message.message_id)
        source = None if message.reply_to_message is None else _source_of(message.reply_to_message)
        return album or ([source] if source is not None else [])

    async def _cancel(self, press: CallbackQuery, job_id: str, words: Words) -> None:
        try:
            job = await apart(self._queue.cancel, job_id[:64], f"tg:{press.from_user.id}")
        except NoJobError:
            await self._reply_press(press, words("over"))
            return
        await self._reply_press(press, words("over" if job.delivered_s else "stopping"))

    async def _reply_press(self, press: CallbackQuery, text: str = "") -> None:
        with suppress(TelegramBadRequest):  # it is too old
            await self._bot.answer_callback_query(press.id, text=text or None)

    async def _edit(self, message: Message, text: str, buttons: Any) -> None:
        with suppress(TelegramBadRequest, TelegramForbiddenError):
            await self._bot.edit_message_text(
                text=text, chat_id=message.chat.id, message_id=message.message_id, reply_markup=keyboard(buttons)
            )

    # ---- Work --------------------------------------------------------------------------------------------------------

    async def _begin(self, asking: _Asking, sources: Sequence[Source], wish: Wish, status: int | None) -> None:
        """Put a wish into the queue: one job for two photos, or one for each."""
        groups = [list(sources)] if wish.num_photos == 2 else [[source] for source in sources]
        begun = [
            self._begin_one(asking, group, wish, status if i == 0 else None, f"{asking.key} {i}")
            for i, group in enumerate(groups)
        ]
        await asyncio.gather(*begun)

    async def _begin_one(
        self, asking: _Asking, photos: Sequence[Source], wish: Wish, status: int | None, key: str
    ) -> None:
        words, was_sent = asking.words, status is None
        is_new = status is None and self._notes.sent(asking.update, key) is None
        if status is None:
            status = await self._send_once(asking, key, words("fetching"), photos[0].message)
        to = Address(
            bot=self._bot.id,
            chat=asking.chat,
            status=status,
            source=photos[0].message,
            kind="document" if photos[-1 if wish.name == "swap" else 0].is_document else "photo",
            lang=words.lang,
            what=f"{wish.name}={wish.value}",
        )
        if not was_sent:
            await self._courier.tell(to, words("fetching"))
        try:
            job = await self._submit(asking, photos, wish, to, key)
        except MienError as err:
            await self._courier.tell(to, words.refusal(err))
        except TelegramAPIError as err:
            logger.warning("a photo cannot be fetched: %s", type(err).__name__)
            is_large = "too big" in err.message
            max_mb = self._max_bytes >> 20
            text = words("too_large", mb=f">{max_mb}", max_mb=max_mb) if is_large else words("unreachable")
            await self._courier.tell(to, text)
        else:
            if job.address == str(to):
                self._courier.watch(job, to)
            elif is_new:  # an earlier life of the bot had submitted it, and its message becomes the answer
                with suppress(TelegramBadRequest):
                    await self._bot.delete_message(asking.chat, status)

    async def _submit(self, asking: _Asking, photos: Sequence[Source], wish: Wish, to: Address, key: str) -> Job:
        user, request = f"tg:{asking.user}", wish.request(self._settings.bot.method)
        label = (await apart(self._check, request, len(photos))).label
        await apart(self._blocked.check_user, user)
        data = [await self._fetch(photo) for photo in photos]
        async with self._decoders:
            await asyncio.to_thread(admit, data, user=user, settings=self._settings.trust, blocked=self._blocked)
        return await asyncio.to_thread(
            self._queue.submit,
            request,
            user=user,
            operation=label,
            inputs=data,
            key=f"{asking.chat} {key}",
            address=str(to),
            keep_s=0.0,
        )

    async def _fetch(self, photo: Source) -> bytes:
        """Fetch a photo, never more of it than is allowed."""
        async with self._downloads:
            file = await self._bot.get_file(photo.file_id)
            into = _Bounded(self._max_bytes)
            await self._bot.download_file(str(file.file_path), into, timeout=60)
            return into.getvalue()

    async def _on_error(self, event: ErrorEvent) -> None:
        """Note where something broke, and nothing of the user; say that it did."""
        err = event.exception
        where = "".join(traceback.format_tb(err.__traceback__))
        logger.error("%s at\n%s", type(err).__name__, where)
        press, message = event.update.callback_query, event.update.message
        answer: Callable[[str], Awaitable[None]] | None = None
        if press is not None:
            user, answer = press.from_user, lambda text: self._reply_press(press, text)
        elif message is not None and message.from_user is not None and message.chat.type == "private":
            user, answer = message.from_user, lambda text: self._say(message, text)
        if answer is not None:
            with suppress(TelegramAPIError):
                await answer(words_of(user.language_code)("broken"))


class _Bounded(io.BytesIO):
    """Takes so many bytes and no more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._most:
            raise MienError("the file is too large", hint=f"at most {self._most >> 20} MB")
        return super().write(data)


def _source_of(message: Message) -> Source | None:
    """Return the photo of a message; of a document that says to be no picture, None."""
    if message.photo:
        largest = max(message.photo, key=lambda size: size.width * size.height)
        return Source(largest.file_id, message.message_id, False, largest.file_size or 0)
    document = message.document
    if document is not None and (document.mime_type or "").startswith("image/"):
        return Source(document.file_id, message.message_id, True, document.file_size or 0)
    return None


def _reply(message: int) -> ReplyParameters:
    return ReplyParameters(message_id=message, allow_sending_without_reply=True)
