"""What happens when a visitor of the page does something: each act yields what the page shows next, by part."""

from __future__ import annotations

from collections.abc import Iterator

from mien.app.web.changes import Changes
from mien.app.web.desk import Desk
from mien.app.web.errands import Errands
from mien.app.web.faults import note_words
from mien.app.web.stage import LIVE_PX, Answer, Wait, large

__all__ = ["Acts"]


class Acts(Changes, Errands):
    """The acts of one language's page; its arguments are those of `Errands`."""

    # ---- Photo and faces --------------------------------------------------------------------------------------------

    def open(self, desk: Desk, data: bytes | None) -> Iterator[Answer]:
        """Take a photo in."""
        if data is None:
            return
        told = desk.open(data)
        hint = note_words(self.lang, told)
        yield from self.show(desk, self.say("found", count=len(desk.now.scene.faces)), hint)

    def invent(self, desk: Desk) -> Iterator[Answer]:
        """Begin with somebody who does not exist."""
        yield from self.open(desk, desk.invent())

    def pick(self, desk: Desk, face: int) -> Iterator[Answer]:
        """Choose a face."""
        desk.pick(face)
        yield {"live": self.live_of(desk), "drag_face": large(desk.crop(face), LIVE_PX)} | self.sliders(desk)

    def new(self, desk: Desk) -> Iterator[Answer]:
        """Put the photo away, and stop what runs."""
        if desk.errand is not None:
            self.queue.delete(desk.errand.job_id)
        desk.clear()
        yield self.empty("welcome")

    def forget(self, desk: Desk) -> Iterator[Answer]:
        """Delete all that is held of this visitor."""
        self.queue.delete_user_data(desk.user)
        self.desks.forget(desk)
        yield self.empty("deleted")

    def resume(self, desk: Desk) -> Iterator[Answer | Wait]:
        """Show a page that was loaded anew where its visitor was."""
        if desk.moments:
            yield from self.show(desk, self.say("resumed"))
        if desk.made is not None:
            yield self.made(desk)
        yield from self.watch(desk)

    # ---- History ----------------------------------------------------------------------------------------------------

    def undo(self, desk: Desk) -> Iterator[Answer]:
        """Go one step back."""
        yield from self.show(desk, self.say("undone" if desk.undo() else "first"))

    def reset(self, desk: Desk) -> Iterator[Answer]:
        """Go back to the photo as it came."""
        yield from self.go_back(desk, 0)

    def go_back(self, desk: Desk, number: int) -> Iterator[Answer]:
        """Go back to a state of the history."""
        desk.go_back(number)
        yield from self.show(desk, self.say("undone" if number else "first"))
