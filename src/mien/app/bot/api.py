"""The bot's side of Telegram's Bot API: what is tried again, how long it is waited, and that the token is said nowhere.

Source: Telegram Bot API 7.11 and later (editMessageMedia adds a picture to a text message), core.telegram.org/bots/api.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from typing import Any

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.session.middlewares.base import BaseRequestMiddleware
from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
from aiogram.exceptions import TelegramAPIError, TelegramNetworkError, TelegramRetryAfter, TelegramServerError
from aiogram.methods import AnswerCallbackQuery, GetUpdates
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup
from aiogram.utils.token import TokenValidationError

from mien.app.bot.menu import Buttons
from mien.app.settings import BotSettings
from mien.errors import InputError

__all__ = ["Patience", "hush", "is_unchanged", "keyboard", "open_bot", "without_token"]

TOKEN = re.compile(r"\d{3,}(?::|%3[aA])[A-Za-z0-9_-]{8,}")
MAX_TRIES, MAX_PAUSE_S = 8, 20.0

logger = logging.getLogger(__name__)


def without_token(text: str) -> str:
    """Hide whatever looks like a token.

    >>> without_token("POST https://api.telegram.org/bot123456:AAabcdef_12/getMe")
    'POST https://api.telegram.org/bot***/getMe'
    """
    return TOKEN.sub("***", text)


class _Hushed(logging.Formatter):
    """Formats as another one does, tracebacks too, and hides tokens."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return without_token(self._inner.format(record))


def hush(handlers: Sequence[logging.Handler]) -> None:
    """Let log handlers hide tokens, whoever writes to them."""
    for handler in handlers:
        handler.setFormatter(_Hushed(handler.formatter or logging.Formatter()))


class Patience(BaseRequestMiddleware):
    """Waits as long as Telegram says before it asks again, and tries once more what a fault of the network took.

    All calls wait for a flood limit together, so that one user's does not lengthen it for the others.
    """

    def __init__(self) -> None:
        self._free_s = 0.0

    async def __call__(self, make_request: Any, bot: Bot, method: Any) -> Any:
        if isinstance(method, GetUpdates):  # the poller waits by itself
            return await make_request(bot, method)
        for attempt in range(1, MAX_TRIES + 1):
            if (left_s := self._free_s - time.monotonic()) > 0:
                await asyncio.sleep(left_s)
            try:
                return await make_request(bot, method)
            except TelegramRetryAfter as err:
                if attempt == MAX_TRIES:
                    raise
                logger.warning("%s: Telegram wants %d s of silence", type(method).__name__, err.retry_after)
                self._free_s = max(self._free_s, time.monotonic() + err.retry_after)
            except (TelegramServerError, TelegramNetworkError) as err:
                if attempt == MAX_TRIES or isinstance(method, AnswerCallbackQuery):
                    raise
                logger.warning("%s: %s", type(method).__name__, type(err).__name__)
                await asyncio.sleep(min(0.25 * 2**attempt, MAX_PAUSE_S))
        raise AssertionError


def open_bot(settings: BotSettings) -> Bot:
    """Return the client, as the settings say; nothing is sent yet.

    Raises:
        InputError: there is no token, or it is none.
    """
    if not settings.token:
        raise InputError("the bot has no token", hint="set MIEN_BOT_TOKEN, or name a file in token_file of [bot]")
    server = PRODUCTION
    if settings.api_url:
        server = TelegramAPIServer.from_base(settings.api_url, is_local=settings.api_is_local)
    session = AiohttpSession(api=server, limit=100)
    session.middleware(Patience())
    try:
        return Bot(settings.token.reveal(), session=session)
    except TokenValidationError:
        raise InputError("the bot's token is none", hint="copy it whole from @BotFather: 123456:ABC...") from None


def keyboard(buttons: Buttons | None) -> InlineKeyboardMarkup | None:
    """Return buttons as Telegram takes them."""
    if not buttons:
        return None
    rows = [[InlineKeyboardButton(text=label, callback_data=data) for label, data in row] for row in buttons]
    return InlineKeyboardMarkup(inline_keyboard=rows)


def is_unchanged(err: TelegramAPIError) -> bool:
    """Say whether Telegram only tells that a message is as it should be already."""
    return "not modified" in err.message
