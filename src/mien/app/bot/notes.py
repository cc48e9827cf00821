"""What the bot must still know after it was killed.

Which updates it has answered, which messages it has sent for those that it had not, and which photos made an album.
They lie in the queue's store, as three small facts; photos are named by Telegram's file ids, and forgotten in a day.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mien.app.jobs.store import Store, Table

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
    """Notes of one bot; what reads or writes the store blocks, and does not belong on the event loop.

    Args:
        store: the queue's.
        bot_id: Telegram's number of the bot.
    """

    def __init__(self, store: Store, bot_id: int) -> None:
        self._store, self._albums, self._updates = store, f"tg:{bot_id}:albums", f"tg:{bot_id}:updates"
        self._messages = f"tg:{bot_id}:messages"
        self._sent: dict[str, int] = {}  # update and part of the answer => message, of now and of an earlier life
        self._unwritten: dict[str, int] = {}

    def answered(self) -> list[int]:
        """Return the updates that were answered last, and remember what was sent for those that were not."""
        self._sent = self._store.look(lambda table: table.fact(self._messages) or {}) | self._sent
        return self._store.look(lambda table: table.fact(self._updates) or [])

    def sent(self, update: int, part: str) -> int | None:
        """Return the message that was sent as a part of an update's answer, None where there is none."""
        return self._sent.get(f"{update} {part}")

    def note_sent(self, update: int, part: str, message: int) -> None:
        """Remember a message that was sent before its update was answered, until `write` keeps it."""
        key = f"{update} {part}"
        self._sent, self._unwritten = (_newest({**known, key: message}) for known in (self._sent, self._unwritten))

    @property
    def unwritten(self) -> dict[str, int]:
        """What is to be written."""
        return self._unwritten

    def written(self, sent: Collection[str]) -> None:
        """Note that these are on the disk."""
        self._unwritten = {key: message for key, message in self._unwritten.items() if key not in sent}

    def write(self, answered: Iterable[int], sent: Mapping[str, int]) -> None:
        """Remember that updates are answered, in case Telegram brings them once more, and what was sent for others."""
        done = set(answered)

        def change(table: Table) -> None:
            table.set_fact(self._updates, sorted({*(table.fact(self._updates) or []), *done})[-MAX_UPDATES:])
            known = {**(table.fact(self._messages) or {}), **sent}
            open_ = {key: message for key, message in known.items() if int(key.partition(" ")[0]) not in done}
            table.set_fact(self._messages, _newest(open_))

        self._store.run(change)

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


def _newest(sent: dict[str, int]) -> dict[str, int]:
    """Return the last ones; by webhook nobody says when an update is answered."""
    return dict(list(sent.items())[-MAX_UPDATES:])
