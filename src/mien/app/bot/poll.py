"""Fetches updates so that none is lost: Telegram keeps each until it is answered, not only until it was fetched.

aiogram's own poller lets Telegram forget an update as soon as it asks for the next ones; what its handler had not
finished when the process was killed is lost. Here the oldest unanswered update is asked for again and again, and those
that are known are passed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from aiogram import Bot
from aiogram.exceptions import TelegramAPIError, TelegramConflictError, TelegramRetryAfter, TelegramUnauthorizedError
from aiogram.types import Update

from mien.app.bot.notes import BotNotes
from mien.errors import InputError, MienError

__all__ = ["Poller"]

WAIT_S, PAUSE_S, LONGEST_PAUSE_S = 25, 0.1, 20.0

logger = logging.getLogger(__name__)


class Poller:
    """Asks for updates and has each answered in a task of its own, at most a hundred at a time.

    Args:
        bot: client.
        notes: which updates are answered already.
        answer: answers one; what it raises is its own affair.
        kinds: of updates.
    """

    def __init__(
        self, bot: Bot, notes: BotNotes, answer: Callable[[Update], Coroutine[Any, Any, None]], kinds: list[str]
    ) -> None:
        self._bot, self._notes, self._answer, self._kinds = bot, notes, answer, kinds
        self._running: dict[int, asyncio.Task[None]] = {}
        self._answered: set[int] = set()
        self._unwritten: set[int] = set()
        self._next: int | None = None

    async def run(self) -> None:
        """Fetch until cancelled."""
        self._answered = set(await asyncio.to_thread(self._notes.answered))
        pause_s = PAUSE_S
        while True:
            try:
                await self._fetch()
                pause_s = PAUSE_S
            except TelegramUnauthorizedError:
                raise InputError(
                    "Telegram does not know the bot's token", hint="ask @BotFather for a new one"
                ) from None
            except TelegramConflictError:
                logger.error("another process asks for this bot's updates, or it has a webhook")
                pause_s = await _paused(pause_s)
            except TelegramRetryAfter as err:
                await asyncio.sleep(err.retry_after)
            except TelegramAPIError as err:
                logger.warning("updates cannot be fetched: %s", type(err).__name__)
                pause_s = await _paused(pause_s)
            except MienError as err:
                logger.warning("%s", err.message)
                pause_s = await _paused(pause_s)

    async def _fetch(self) -> None:
        if self._running:
            await asyncio.wait(self._running.values(), timeout=PAUSE_S, return_when=asyncio.ALL_COMPLETED)
        await self.write()
        oldest = min(self._running, default=self._next)
        self._answered = {number for number in self._answered if oldest is None or number >= oldest}
        wait_s = 0 if self._running else WAIT_S
        updates = await self._bot.get_updates(
            offset=oldest, limit=100, timeout=wait_s, allowed_updates=self._kinds, request_timeout=wait_s + 10
        )
        for update in updates:
            number = update.update_id
            self._next = max(self._next or 0, number + 1)
            if number not in self._running and number not in self._answered:
                task = asyncio.create_task(self._answer(update))
                self._running[number] = task
                task.add_done_callback(partial(self._end, number))
                await asyncio.sleep(0)  # a hundred beginnings in one turn of the loop would keep all others waiting

    def _end(self, number: int, _task: asyncio.Task[None]) -> None:
        del self._running[number]
        self._answered.add(number)
        self._unwritten.add(number)

    async def write(self) -> None:
        """Note down what was answered, before Telegram is told, and what was sent."""
        written, sent = set(self._unwritten), self._notes.unwritten
        if written or sent:
            await asyncio.to_thread(self._notes.write, written, sent)
            self._unwritten -= written
            self._notes.written(sent)

    async def drain(self) -> None:
        """Wait for the answers that are under way, and let Telegram forget what was answered."""
        while self._running:
            await asyncio.wait(self._running.values())
        await self.write()
        if self._next is not None:
            await self._bot.get_updates(offset=self._next, limit=1, timeout=0, allowed_updates=self._kinds)


async def _paused(pause_s: float) -> float:
    await asyncio.sleep(pause_s)
    return min(2 * pause_s, LONGEST_PAUSE_S)
