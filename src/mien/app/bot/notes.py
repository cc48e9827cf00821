"""What the bot must still know after it was killed: which updates it has answered, and which photos made an album.

Both lie in the queue's store, as two small facts; photos are named by Telegram's file ids, and forgotten in a day.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mien.app.jobs.store import Store

__all__ = ["BotNotes", "Source"]

KEEP_S, MAX_ALBUMS, MAX_UPDATES = 86400.0, 500, 400


@dataclass(frozen=True)
class Source:
    """A photo in a chat.

    Attributes:
        file_id: by which Telegram gives it.
        message: its number in the chat.
        is_document: it came as a file, and is answered with one.
        num_bytes: as Telegram says, 0 where it does not.
    """

    file_id: str
    message: int
    is_document: bool
    num_bytes: int = 0


class BotNotes:
    """Notes of one bot; every call blocks for a transaction, so none belongs on the event loop.

    Args:
        store: the queue's.
        bot_id: Telegram's number of the bot.
    """

    def __init__(self, store: Store, bot_id: int) -> None:
        self._store, self._albums, self._updates = store, f"tg:{bot_id}:albums", f"tg:{bot_id}:updates"

    def answered(self) -> list[int]:
        """Return the updates that were answered last."""
        return self._store.look(lambda table: table.fact(self._updates) or [])

    def note_answered(self, updates: Iterable[int]) -> None:
        """Remember that updates are answered, in case Telegram brings them once more."""
        self._store.run(
            lambda table: table.set_fact(
                self._updates, sorted({*(table.fact(self._updates) or []), *updates})[-MAX_UPDATES:]
            )
        )

    def album(self, chat: int, menu: int) -> list[Source]:
        """Return the photos that the menu in this message is about; none where it is no album's."""
        found = self._store.look(lambda table: (table.fact(self._albums) or {}).get(f"{chat}/{menu}"))
        return [Source(**one) for one in found["photos"]] if found else []

    def note_album(self, chat: int, menu: int, photos: Iterable[Source]) -> None:
        """Remember the photos that a menu is about."""
        entry = {"at_s": time.time(), "photos": [asdict(photo) for photo in photos]}
        self._change(lambda albums: {**albums, f"{chat}/{menu}": entry})

    def forget(self, chat: int) -> None:
        """Forget the albums of a chat."""
        self._change(lambda albums: {k: v for k, v in albums.items() if not k.startswith(f"{chat}/")})

    def _change(self, change: Any) -> None:
        def run(table: Any) -> None:
            fresh_s = time.time() - KEEP_S
            albums = {k: v for k, v in change(table.fact(self._albums) or {}).items() if v["at_s"] > fresh_s}
            table.set_fact(self._albums, dict(list(albums.items())[-MAX_ALBUMS:]))

        self._store.run(run)
