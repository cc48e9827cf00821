"""Acts that the queue does: the page asks for a job, tells how it goes, and goes on with what was made.

A job belongs to the visitor's desk and not to the connection that asked for it: whoever loads the page anew, or comes
back later, finds it where it is.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import PIL.ImageDraw
from PIL.Image import Image

from mien.app.jobs.queue import Queue, Status
from mien.app.jobs.record import State
from mien.app.jobs.requests import check
from mien.app.web.desk import Desk, Errand
from mien.app.web.desks import Desks
from mien.app.web.faults import job_words, note_words
from mien.app.web.stage import LIVE_PX, Answer, Stage, Wait, data_address, given, large, need_face, put
from mien.edits.expression import emotion
from mien.errors import Cancelled

__all__ = ["EVERYBODY", "POINTS", "WHOLE", "Effort", "Errands"]

POLL_S = 0.3
MOST_POINTS = 2
EVERYBODY, WHOLE = "everybody", "whole_picture"
SUFFIXES = {"morph": ".mp4", "sweep": ".png", "lab": ".zip"}

POINTS: Mapping[str, tuple[float, float]] = {
    "mouth_left": (0.42, 0.72),
    "mouth_right": (0.58, 0.72),
    "nose": (0.5, 0.6),
    "chin": (0.5, 0.9),
}
"""Where points of an FFHQ crop lie on average, in its sides, for those who do not click."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much work the page asks for."""

    swap_steps: int | None = None  # by default the swap's own
    drag_steps: int = 60
    paint_steps: int = 60
    paint_px: int = 384
    lab_steps: int = 10
    film_fps: int = 24


class Errands(Stage):
    """What is made by the queue.

    Args:
        desks: of all visitors.
        queue: of jobs.
        lang: one of `texts.LANGUAGES`.
        effort: asked for.
    """

    def __init__(self, desks: Desks, queue: Queue, lang: str, effort: Effort | None = None) -> None:
        super().__init__(desks, queue, lang)
        self.effort = effort or Effort()

    # ---- What can be asked for --------------------------------------------------------------------------------------

    def express(self, desk: Desk, name: str, strength: float, data: bytes | None) -> Iterator[Answer | Wait]:
        """Give the chosen face an expression, by name or from a picture."""
        need_face(desk)
        shown = dict(emotion(name)) if data is None else desk.expression(data)
        request = desk.change_request({"op": "express", "shown": shown, "strength": float(strength)})
        yield from self._ask(desk, request, [desk.upload()], "express")

    def swap(self, desk: Desk, data: bytes | None) -> Iterator[Answer | Wait]:
        """Put the face of another picture on the chosen one."""
        need_face(desk)
        steps = self.effort.swap_steps
        request = {"op": "swap", "face": desk.face} | ({} if steps is None else {"steps": steps})
        yield from self._ask(desk, request, [given(data), desk.upload()], "swap")

    def toonify(self, desk: Desk, style: str, strength: float, who: str) -> Iterator[Answer | Wait]:
        """Draw every face, the chosen one, or the whole picture."""
        _ = desk.now
        request = {"op": "toonify", "style": style, "strength": float(strength), "whole": who == WHOLE}
        if who not in (EVERYBODY, WHOLE):
            request["face"] = desk.face
        yield from self._ask(desk, request, [desk.upload()], "toonify")

    def stylize(self, desk: Desk, data: bytes | None, spare: float) -> Iterator[Answer | Wait]:
        """Paint the whole photo like a picture."""
        _ = desk.now
        way = {"size": self.effort.paint_px, "steps": self.effort.paint_steps}
        request = {"op": "stylize", **way, "spare_faces": float(spare)}
        yield from self._ask(desk, request, [desk.upload(), given(data)], "stylize")

    def morph(self, desk: Desk, pictures: Sequence[bytes] | None, seconds: float) -> Iterator[Answer | Wait]:
        """Make a video that walks from the chosen face to others and back."""
        need_face(desk)
        frames = round(seconds * self.effort.film_fps)
        request = {"op": "morph", "video": True, "frames": frames, "face": desk.face, "method": "encoder"}
        yield from self._ask(desk, request, [desk.upload(), *given(pictures)], "morph")

    def sweep(self, desk: Desk, style: str) -> Iterator[Answer | Wait]:
        """Draw blends of the faces' network and a style's."""
        yield from self._ask(desk, {"op": "sweep", "style": style}, [], "sweep")

    def lab(self, desk: Desk, pictures: Sequence[bytes] | None) -> Iterator[Answer | Wait]:
        """Make the report of a lab of several people."""
        yield from self._ask(desk, {"op": "lab", "edit_steps": self.effort.lab_steps}, given(pictures), "lab")

    def drag(self, desk: Desk) -> Iterator[Answer | Wait]:
        """Move the point that was clicked to where it should go."""
        need_face(desk)
        if len(desk.points) < MOST_POINTS:
            yield {"status": self.told(self.say("drag_none"), kind="bad")}
            return
        px = LIVE_PX / desk.studio.G.img_resolution
        start, goal = ([[x / px, y / px]] for x, y in desk.points)
        operation = {"op": "drag", "starts": start, "goals": goal, "num_steps": self.effort.drag_steps}
        yield from self._ask(desk, desk.change_request(operation), [desk.upload()], "drag")

    def point(self, desk: Desk, x: float, y: float) -> Iterator[Answer]:
        """Note a click on the face, px of its picture: where from, then where to."""
        need_face(desk)
        desk.points = [(x, y)] if len(desk.points) >= MOST_POINTS else [*desk.points, (x, y)]
        yield {"drag_face": _marked(large(desk.crop(desk.face), LIVE_PX), desk.points)}

    def aim(self, desk: Desk, name: str, right: float, down: float) -> Iterator[Answer]:
        """Note a point by its name, and how far it should go, % of the face."""
        need_face(desk)
        start = POINTS.get(name) or tuple(part / LIVE_PX for part in (desk.points or [(LIVE_PX / 2, LIVE_PX / 2)])[0])
        goal = (start[0] + right / 100, start[1] + down / 100)
        desk.points = [_inside(start), _inside(goal)]
        yield {"drag_face": _marked(large(desk.crop(desk.face), LIVE_PX), desk.points)}

    # ---- How it goes ------------------------------------------------------------------------------------------------

    def cancel(self, desk: Desk) -> Iterator[Answer]:
        """Stop the job that runs."""
        if desk.errand is not None:
            self.queue.cancel(desk.errand.job_id, desk.user)
        yield {"cancel": put(interactive=False)}

    def _ask(
        self, desk: Desk, request: Mapping[str, Any], inputs: Sequence[bytes], what: str
    ) -> Iterator[Answer | Wait]:
        """Put a job into the queue, and watch it."""
        if desk.errand is not None:
            yield {"status": self.told(self.say("busy"), kind="bad")}
            return
        label = check(request, len(inputs)).label
        for data in inputs:
            desk.picture(data)
        job = self.queue.submit(request, user=desk.user, operation=label, inputs=inputs)
        desk.errand = Errand(job.id, what)
        yield from self.watch(desk)

    def watch(self, desk: Desk) -> Iterator[Answer | Wait]:
        """Tell how the desk's job goes, and go on with its result; whoever watched before stops."""
        errand, watcher = desk.errand, desk.new_watcher()
        preview = ""
        while errand is not None and desk.is_watched_by(watcher):
            status = self.queue.status(errand.job_id, desk.user)
            if status.job.state.is_over:
                yield from self._end(desk, errand, status)
                return
            answer: Answer = {
                "status": self._going(status, errand.what),
                "cancel": put(visible=True, interactive=not status.job.is_cancelling),
            }
            if status.job.preview != preview and (data := self.queue.preview(status.job)) is not None:
                preview = status.job.preview
                alt = html.escape(self.say("preview"))
                answer["preview"] = f'<img class="preview" src="{data_address(data, "image/png")}" alt="{alt}">'
            yield answer
            yield Wait(POLL_S)

    def _end(self, desk: Desk, errand: Errand, status: Status) -> Iterator[Answer]:
        """Show what a job made, or why it made nothing."""
        if not desk.finish(errand):
            return
        job = status.job
        try:
            if job.state == State.CANCELLED:
                raise Cancelled("stopped")
            if job.state == State.FAILED:
                yield self.wrong(*job_words(self.lang, job.error, job.message, job.hint))
                return
            data = self.queue.results(job)[0]
        finally:
            self.queue.delete(job.id)
        notes = "; ".join(note_words(self.lang, note) for note in job.notes)
        if errand.what in SUFFIXES:
            desk.keep(data, errand.what, SUFFIXES[errand.what])
            yield self.made(desk) | self.idle()
        else:
            desk.take(data, errand.what)
            yield from self.done(desk, errand.what, notes)

    def made(self, desk: Desk) -> Answer:
        """Return what was made beside the photo, to look at and to download."""
        if desk.made is None:
            return {"made": put(visible=False)}
        what, path = desk.made
        words = self.say("done", what=self.say(what).lower())
        return {
            "made": put(visible=True),
            "made_view": self._shown(what, path.read_bytes()),
            "made_file": put(value=str(path), label=self.say(f"made_{what}")),
            "status": self.told(words, kind="good"),
        }

    def _shown(self, what: str, data: bytes) -> str:
        if what == "morph":
            return f'<video src="{data_address(data, "video/mp4")}" controls autoplay loop muted playsinline></video>'
        if what == "sweep":
            return f'<img src="{data_address(data, "image/png")}" alt="{html.escape(self.say(what))}">'
        return f'<p class="help">{self.say("made_lab_help")}</p>'

    def _going(self, status: Status, what: str) -> str:
        job, hints = status.job, []
        if not status.num_workers:
            hints.append(self.say("no_worker"))
        elif status.left_s:
            hints.append(self.say("left", seconds=max(status.left_s, 1)))
        if status.position:
            return self.told(self.say("waits", position=status.position), " ".join(hints), part=0)
        part = job.done / job.total if job.total else 0.0
        return self.told(self.say("works", what=self.say(what).lower()), " ".join(hints), part=part)


def _inside(point: tuple[float, ...]) -> tuple[float, float]:
    x, y = (min(max(part, 0.02), 0.98) * LIVE_PX for part in point)
    return x, y


def _marked(image: Image, points: Sequence[tuple[float, float]]) -> Image:
    """Draw points of a drag, joined by a line."""
    marked = image.convert("RGB")
    pen = PIL.ImageDraw.Draw(marked)
    if len(points) > 1:
        pen.line([xy for point in points for xy in point], "white", 3)
    for (x, y), colour in zip(points, ("#d9622f", "#3f7fd0"), strict=False):
        pen.ellipse((x - 6, y - 6, x + 6, y + 6), colour, "white", 2)
    return marked
