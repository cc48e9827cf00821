"""The Telegram bot: puts photos into the queue and brings results back; workers (`mien worker`) do what is computed.

Told to stop, it takes no more updates, answers what it has begun to answer, and goes; jobs stay in the queue, and the
next bot brings their results.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import signal
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from aiogram import Bot, Dispatcher
from aiogram.exceptions import TelegramAPIError
from aiogram.types import BotCommand, Update
from aiogram.webhook.aiohttp_server import SimpleRequestHandler
from aiohttp import web

from mien.app.bot.api import open_bot, without_token
from mien.app.bot.courier import Courier
from mien.app.bot.menu import Wish, drawings
from mien.app.bot.notes import BotNotes
from mien.app.bot.poll import Poller
from mien.app.bot.talk import Talk
from mien.app.bot.texts import COMMANDS, Words
from mien.app.jobs.queue import open_queue
from mien.app.settings import BotSettings, Settings
from mien.app.trust.gate import load_block_list
from mien.errors import InputError, MienError

__all__ = ["run", "serve"]

KINDS = ["message", "callback_query"]

logger = logging.getLogger(__name__)


def title_of(what: str, words: Words) -> str:
    """Say `name=value` of a wish in words."""
    name, _, value = what.partition("=")
    return Wish(name, value).title(words)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Be the bot until `stop` is set.

    Raises:
        InputError: no token, or one that Telegram does not know.
        QueueError: the queue cannot be opened.
    """
    from mien.app.jobs.requests import check

    await asyncio.to_thread(drawings)  # reads files, and should not do so when somebody waits
    blocked = load_block_list(settings.trust.block_list)
    queue = await asyncio.to_thread(open_queue, settings.jobs)
    bot = open_bot(settings.bot)
    notes = BotNotes(queue.store, bot.id)
    courier = Courier(bot, queue, settings.marks, title_of)
    talk = Talk(bot, queue, settings, courier, notes, blocked, check)
    dispatcher = Dispatcher(disable_fsm=True)
    dispatcher.include_router(talk.router())
    try:
        await _introduce(bot)
        source = _listen if settings.bot.webhook_url else _poll
        carrying = asyncio.create_task(courier.run())
        try:
            await source(bot, dispatcher, notes, settings.bot, stop, carrying)
        finally:
            carrying.cancel()
            await asyncio.wait([carrying])
            with suppress(TimeoutError):
                await asyncio.wait_for(courier.drain(), settings.bot.drain_s)
    finally:
        await bot.session.close()


async def _introduce(bot: Bot) -> None:
    """Tell Telegram the commands, in each language."""
    for lang in ("en", "ru"):
        commands = [BotCommand(command=name, description=text[lang]) for name, text in COMMANDS.items()]
        try:
            await bot.set_my_commands(commands, language_code=lang if lang != "en" else None)
        except TelegramAPIError as err:
            if "Unauthorized" in err.message or "Not Found" in err.message:
                raise InputError("Telegram does not know the bot's token", hint="ask @BotFather for it") from None
            logger.warning("the menu of commands is not set: %s", type(err).__name__)


async def _until(stop: asyncio.Event, *works: asyncio.Task[Any]) -> None:
    """Wait for `stop`, or for work that ends although it should not, and pass its error on."""
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, *works], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for work in works:
        if work in done:
            work.result()


async def _poll(
    bot: Bot,
    dispatcher: Dispatcher,
    notes: BotNotes,
    settings: BotSettings,
    stop: asyncio.Event,
    carrying: asyncio.Task[None],
) -> None:
    """Ask Telegram for updates."""

    async def answer(update: Update) -> None:
        await dispatcher.feed_update(bot, update)

    await bot.delete_webhook()
    poller = Poller(bot, notes, answer, KINDS)
    polling = asyncio.create_task(poller.run())
    try:
        await _until(stop, polling, carrying)
    finally:
        polling.cancel()
        await asyncio.wait([polling])
        with suppress(TimeoutError, TelegramAPIError, MienError):
            await asyncio.wait_for(poller.drain(), settings.drain_s)


async def _listen(
    bot: Bot,
    dispatcher: Dispatcher,
    notes: BotNotes,  # noqa: ARG001 - Telegram calls until it hears that an update was answered
    settings: BotSettings,
    stop: asyncio.Event,
    carrying: asyncio.Task[None],
) -> None:
    """Let Telegram call; each call is answered when its update is, so that Telegram repeats what a kill broke off."""
    secret = settings.webhook_secret.reveal() or secrets.token_urlsafe(32)
    app = web.Application()
    handler = SimpleRequestHandler(dispatcher, bot, handle_in_background=False, secret_token=secret)
    handler.register(app, path=urlsplit(settings.webhook_url).path or "/")
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=settings.drain_s)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.webhook_host, settings.webhook_port).start()
        await bot.set_webhook(settings.webhook_url, secret_token=secret, allowed_updates=KINDS, max_connections=100)
        await _until(stop, carrying)
    finally:
        await runner.cleanup()


def _warm() -> None:
    """Import what is heavy, and let the collector of garbage pass it over: on the loop it would look at all of it."""
    drawings()
    gc.collect()
    gc.freeze()


async def _serve_until_signal(settings: Settings) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for kind in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(kind, stop.set)
    await asyncio.to_thread(_warm)
    await serve(settings, stop)


def run(settings: Settings) -> None:
    """Be the bot until SIGTERM or SIGINT; no error that leaves here quotes the token.

    Raises:
        MienError: see `serve`, or Telegram cannot be used.
    """
    try:
        asyncio.run(_serve_until_signal(settings))
    except TelegramAPIError as err:
        text = without_token(err.message)
        raise MienError(f"Telegram cannot be used: {text}", hint="check the network and api_url of [bot]") from None
