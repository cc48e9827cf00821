"""`mien bot`: the Telegram bot."""

from __future__ import annotations

import logging

import typer

from mien.app.settings import load_settings
from mien.app.terminal.screen import note
from mien.errors import MissingExtraError

__all__ = ["app"]

app = typer.Typer()


@app.command()
def bot() -> None:
    """Be a Telegram bot until it is told to stop (SIGTERM); `mien worker` beside it does the work.

    The token is in MIEN_BOT_TOKEN, or in a file that token_file of [bot] names: docs/bot.md.

    Example: MIEN_BOT_TOKEN=123456:ABC... mien bot
    """
    settings = load_settings()
    try:
        from mien.app.bot.api import hush
        from mien.app.bot.service import run
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] not in ("aiogram", "aiohttp"):
            raise
        raise MissingExtraError("the bot needs aiogram", hint="pip install 'mien[bot]'") from err
    hush(logging.getLogger().handlers)
    logging.getLogger("aiogram.event").setLevel(logging.WARNING)
    if settings.bot.token:
        note("the bot listens; SIGTERM or Ctrl-C ends it in good order")
    run(settings)
