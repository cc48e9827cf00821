"""The desks of all visitors: whose is whose, and what is forgotten when."""

from __future__ import annotations

import re
import secrets
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mien.app.trust.gate import load_block_list
from mien.app.web.desk import Desk

if TYPE_CHECKING:
    from mien.app.settings import Settings
    from mien.app.studio import Studio

__all__ = ["Desks"]

TOKEN = re.compile(r"[0-9a-f]{32}")


class Desks:
    """The desks of all visitors; each is forgotten when it was not used for as long as results are kept.

    Args:
        studio: networks.
        settings: of the operator.
        folder: of all visitors' files.
    """

    def __init__(self, studio: Studio, settings: Settings, folder: Path) -> None:
        self.studio, self.settings, self.folder = studio, settings, folder
        self.computing = threading.Lock()
        self._blocked = load_block_list(settings.trust.block_list)
        self._desks: dict[str, Desk] = {}  # by the page's token, or by the session of a page without one
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()

    def join(self, session: str, token: str) -> None:
        """Let a session go on with what was done under a token, which the page of one browser's tab keeps."""
        if TOKEN.fullmatch(token):
            with self._lock:
                self._tokens[session] = token

    def of(self, session: str) -> Desk:
        """Return the desk of a browser's session."""
        with self._lock:
            key = self._tokens.get(session, session)
            if key not in self._desks:
                name = secrets.token_hex(12)
                self._desks[key] = Desk(
                    self.studio, self.settings, self.folder / name, f"web:{name}", self.computing, self._blocked
                )
            desk = self._desks[key]
            desk.used_s = time.monotonic()
            return desk

    def forget(self, desk: Desk) -> None:
        """Delete what is held of a visitor."""
        with self._lock:
            self._desks = {key: one for key, one in self._desks.items() if one is not desk}
        desk.clear()
        for path in desk.folder.glob("*"):
            path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Forget who was not here for long, and delete every file that is too old."""
        keep_s = self.settings.jobs.keep_s
        with self._lock:
            old = [desk for desk in self._desks.values() if desk.used_s + keep_s <= time.monotonic()]
        for desk in old:
            self.forget(desk)
        with self._lock:
            self._tokens = {session: token for session, token in self._tokens.items() if token in self._desks}
        for path in self.folder.rglob("*"):
            try:
                if path.is_file() and path.stat().st_mtime + keep_s <= time.time():
                    path.unlink()
            except OSError:  # somebody else deleted it
                continue
