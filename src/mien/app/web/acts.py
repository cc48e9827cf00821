"""What happens when a visitor of the page does something: each act yields what the page shows next, by part.

Acts know no Gradio. Whatever goes wrong becomes words in the part `status`; the unexpected becomes a number that the
log holds too.
"""

from __future__ import annotations

import base64
import html
import io
import logging
import secrets
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
from PIL.Image import Image

from mien.app.jobs.queue import Queue, Status
from mien.app.jobs.record import State
from mien.app.jobs.requests import check
from mien.app.web.desk import Desk, Desks
from mien.app.web.texts import error_words, say
from mien.edits.expression import emotion
from mien.errors import Cancelled, InputError, MienError

__all__ = ["Acts", "Answer", "Set"]

POLL_S = 0.3
FACE_PX, LIVE_PX = 128, 256
PAINT_PX, PAINT_STEPS = 384, 60
DRAG_STEPS, MOST_POINTS = 60, 2

Answer = dict[str, Any]
"""Part of the page => its value, or what to set of it."""

Act = Callable[..., Iterator[Answer]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Set:
    """Properties of a part, say whether it is visible."""

    props: Mapping[str, Any] = field(default_factory=dict)


def _set(**props: Any) -> Set:
    return Set(props)


def _large(image: Image, px: int) -> Image:
    return image.resize((px, px), PIL.Image.Resampling.BICUBIC)


def _inline(image: Image) -> str:
    file = io.BytesIO()
    _large(image, LIVE_PX).save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


class Acts:
    """The acts of one language's page.

    Args:
        desks: of all visitors.
        queue: for what takes longer than a moment.
        lang: one of `web_texts.LANGUAGES`.
    """

    def __init__(self, desks: Desks, queue: Queue, lang: str) -> None:
        self.desks, self.queue, self.lang = desks, queue, lang

    def run(self, act: Act, session: str, *values: Any) -> Iterator[Answer]:
        """Do an act for a browser's session; errors are told in words."""
        try:
            yield from act(self.desks.of(session), *values)
        except MienError as err:
            yield {"status": self._told(*error_words(self.lang, err), kind="bad"), "cancel": _set(visible=False)}
        except Exception as err:
            number = secrets.token_hex(4)
            where = "".join(traceback.format_tb(err.__traceback__))
            logger.error("page %s: %s at\n%s", number, type(err).__name__, where)
            words = self.say("broken"), self.say("broken_hint", number=number)
            yield {"status": self._told(*words, kind="bad"), "cancel": _set(visible=False)}

    def say(self, key: str, **values: object) -> str:
        """Return a text in the page's language."""
        return say(self.lang, key, **values)

    # ---- What is shown ----------------------------------------------------------------------------------------------

    def _told(self, words: str, hint: str = "", *, kind: str = "", part: float | None = None) -> str:
        """Return a line of the part `status`; `part` 0..1 is drawn as a bar."""
        role = "alert" if kind == "bad" else "status"
        bar = "" if part is None else f'<progress value="{part:.3f}" max="1"></progress>'
        more = f"<span>{hint}</span>" if hint else ""
        return f'<div class="told {kind}" role="{role}"><b>{words}</b>{more}{bar}</div>'

    def _view(self, desk: Desk) -> Answer:
        """The photo before and after, the faces, and the history."""
        now = desk.now
        crops = [_large(desk.crop(i), FACE_PX) for i in range(len(now.scene.faces))]
        history = [(str(path), self.say(one.what)) for path, one in zip(desk.thumbs(), desk.moments, strict=True)]
        return {
            "drop": _set(visible=False),
            "invent": _set(visible=False),
            "result": _set(value=tuple(map(str, desk.shown())), visible=True),
            "faces": _set(value=crops, selected_index=desk.face if crops else None, visible=len(crops) > 1),
            "history": _set(value=history, visible=len(history) > 1),
            "tools": _set(visible=True),
            "steps": _set(visible=False),
            "buttons": _set(visible=True),
            "undo": _set(interactive=len(history) > 1),
            "live": self._live_of(desk),
            "drag_face": _set(value=_large(desk.crop(desk.face), LIVE_PX) if crops else None),
        } | self._sliders(desk)

    def _sliders(self, desk: Desk) -> Answer:
        return {f"set:{name}": desk.strengths.get(name, 0.0) for name in desk.studio.directions.directions}

    def _live_of(self, desk: Desk) -> str:
        if not desk.now.scene.faces:
            return ""
        return self._pair(*desk.live(desk.strengths))

    def _pair(self, before: Image, after: Image) -> str:
        pictures = ((before, self.say("before")), (after, self.say("after")))
        tiles = (
            f'<figure><img src="{_inline(image)}" alt="{html.escape(word)}"><figcaption>{html.escape(word)}'
            "</figcaption></figure>"
            for image, word in pictures
        )
        return f'<div class="pair">{"".join(tiles)}</div>'

    def _show(self, desk: Desk, words: str, hint: str = "") -> Iterator[Answer]:
        """Show the present state, then offer it as a file."""
        told = {"status": self._told(words, html.escape(hint), kind="good"), "cancel": _set(visible=False)}
        yield self._view(desk) | told
        yield {"download": _set(value=str(desk.result()), interactive=True)}

    def _done(self, desk: Desk, key: str) -> Iterator[Answer]:
        yield from self._show(desk, self.say("done", what=self.say(key).lower()))

    # ---- Photo and faces --------------------------------------------------------------------------------------------

    def open(self, desk: Desk, data: bytes | None) -> Iterator[Answer]:
        """Take a photo in."""
        if data is None:
            return
        told = desk.open(data)
        yield from self._show(desk, self.say("found", count=len(desk.now.scene.faces)), told)

    def invent(self, desk: Desk) -> Iterator[Answer]:
        """Begin with somebody who does not exist."""
        yield from self.open(desk, desk.invent())

    def pick(self, desk: Desk, face: int) -> Iterator[Answer]:
        """Choose a face."""
        desk.pick(face)
        yield {"live": self._live_of(desk), "drag_face": _large(desk.crop(face), LIVE_PX)} | self._sliders(desk)

    def new(self, desk: Desk) -> Iterator[Answer]:
        """Put the photo away."""
        desk.moments.clear()
        yield self._empty("welcome")

    def forget(self, desk: Desk) -> Iterator[Answer]:
        """Delete all that is held of this visitor."""
        self.queue.delete_user_data(desk.user)
        self.desks.forget(desk)
        yield self._empty("deleted")

    def _empty(self, key: str) -> Answer:
        hidden = ("result", "faces", "history", "tools", "buttons", "cancel")
        return {name: _set(visible=False) for name in hidden} | {
            "drop": _set(value=None, visible=True),
            "invent": _set(visible=True),
            "steps": _set(visible=True),
            "live": "",
            "download": _set(value=None, interactive=False),
            "recipe": _set(value=None, visible=False),
            "status": self._told(self.say(key)),
        }

    # ---- Changes that are drawn at once -----------------------------------------------------------------------------

    def live(self, desk: Desk, *values: float) -> Iterator[Answer]:
        """Follow the sliders on the small face."""
        if desk.moments and desk.now.scene.faces:
            yield {"live": self._pair(*desk.live(self._strengths(desk, values)))}

    def edit(self, desk: Desk, *values: float) -> Iterator[Answer]:
        """Follow the sliders in the photo."""
        _need_face(desk)
        desk.edit(self._strengths(desk, values))
        yield from self._done(desk, "adjust")

    def _strengths(self, desk: Desk, values: Sequence[float]) -> dict[str, float]:
        return dict(zip(desk.studio.directions.directions, values, strict=True))

    def style(self, desk: Desk, data: bytes | None, seed: float, amount: float, keep_colour: bool) -> Iterator[Answer]:
        """Take light and colour of a picture, or of an invented person."""
        _need_face(desk)
        code = desk.studio.seed_code(int(seed or 0)) if data is None else desk.code(data)
        desk.style(code, amount=amount, keep_colour=keep_colour)
        yield from self._done(desk, "style")

    def blend(self, desk: Desk, pictures: Sequence[bytes] | None, *weights: float) -> Iterator[Answer]:
        """Make a person of several."""
        _need_face(desk)
        others = [desk.code(data) for data in _given(pictures)]
        shares = list(weights[: len(others) + 1])
        desk.blend(others, shares)
        total = sum(shares)
        names = [self.say("you"), *(self.say("person", number=i + 2) for i in range(len(others)))]
        rows = "".join(
            f'<span>{html.escape(name)}</span><i style="--part:{share / total:.1%}"></i><b>{share / total:.0%}</b>'
            for name, share in zip(names, shares, strict=True)
        )
        yield {"chart": f'<div class="bars">{rows}</div>'}
        yield from self._done(desk, "blend")

    def replay(self, desk: Desk, data: bytes | None) -> Iterator[Answer]:
        """Do a recipe."""
        _need_face(desk)
        desk.replay(_given(data))
        yield from self._done(desk, "replay")

    # ---- History ----------------------------------------------------------------------------------------------------

    def undo(self, desk: Desk) -> Iterator[Answer]:
        """Go one step back."""
        yield from self._show(desk, self.say("undone" if desk.undo() else "first"))

    def reset(self, desk: Desk) -> Iterator[Answer]:
        """Go back to the photo as it came."""
        yield from self.go_back(desk, 0)

    def go_back(self, desk: Desk, number: int) -> Iterator[Answer]:
        """Go back to a state of the history."""
        desk.go_back(number)
        yield from self._show(desk, self.say("undone" if number else "first"))

    def recipe(self, desk: Desk) -> Iterator[Answer]:
        """Write the recipe of what was done to the chosen face."""
        path = desk.write_recipe()
        yield {
            "recipe": _set(value=str(path), visible=True),
            "status": self._told(self.say("done", what=self.say("recipe").lower()), kind="good"),
        }

    # ---- The queue --------------------------------------------------------------------------------------------------

    def express(self, desk: Desk, name: str, strength: float, data: bytes | None) -> Iterator[Answer]:
        """Give the chosen face an expression, by name or from a picture."""
        _need_face(desk)
        shown = dict(emotion(name)) if data is None else desk.expression(data)
        request = desk.change_request({"op": "express", "shown": shown, "strength": float(strength)})
        yield from self._job(desk, request, [desk.upload()], "express")

    def swap(self, desk: Desk, data: bytes | None) -> Iterator[Answer]:
        """Put the face of another picture on the chosen one."""
        _need_face(desk)
        yield from self._job(desk, {"op": "swap", "face": desk.face}, [_given(data), desk.upload()], "swap")

    def stylize(self, desk: Desk, data: bytes | None, spare: float) -> Iterator[Answer]:
        """Paint the whole photo like a picture."""
        _ = desk.now
        request = {"op": "stylize", "size": PAINT_PX, "steps": PAINT_STEPS, "spare_faces": float(spare)}
        yield from self._job(desk, request, [desk.upload(), _given(data)], "stylize")

    def point(self, desk: Desk, x: float, y: float) -> Iterator[Answer]:
        """Note a click on the face, px of its picture: where from, then where to."""
        _need_face(desk)
        desk.points = [(x, y)] if len(desk.points) >= MOST_POINTS else [*desk.points, (x, y)]
        yield {"drag_face": _marked(_large(desk.crop(desk.face), LIVE_PX), desk.points)}

    def drag(self, desk: Desk) -> Iterator[Answer]:
        """Move the point that was clicked to where it should go."""
        _need_face(desk)
        if len(desk.points) < MOST_POINTS:
            yield {"status": self._told(self.say("drag_none"), kind="bad")}
            return
        px = LIVE_PX / desk.studio.G.img_resolution
        start, goal = ([[x / px, y / px]] for x, y in desk.points)
        operation = {"op": "drag", "starts": start, "goals": goal, "num_steps": DRAG_STEPS}
        yield from self._job(desk, desk.change_request(operation), [desk.upload()], "drag")

    def cancel(self, desk: Desk) -> Iterator[Answer]:
        """Stop the job that runs."""
        if desk.job:
            self.queue.cancel(desk.job, desk.user)
        yield {"cancel": _set(interactive=False)}

    def _job(self, desk: Desk, request: Mapping[str, Any], inputs: Sequence[bytes], what: str) -> Iterator[Answer]:
        """Let the queue do it, tell how it goes, and go on with the result."""
        for data in inputs:
            desk.picture(data)
        label = check(request, len(inputs)).label
        job = self.queue.submit(request, user=desk.user, operation=label, inputs=inputs)
        desk.job = job.id
        try:
            while not (status := self.queue.status(job.id, desk.user)).job.state.is_over:
                yield {"status": self._going(status, what), "cancel": _set(visible=True, interactive=True)}
                time.sleep(POLL_S)
            if status.job.state == State.CANCELLED:
                raise Cancelled("stopped")
            if status.job.state == State.FAILED:
                raise MienError(status.job.message, hint=status.job.hint)
            desk.take(self.queue.results(status.job)[0], what)
        finally:
            desk.job = ""
            self.queue.delete(job.id)
        yield from self._done(desk, what)

    def _going(self, status: Status, what: str) -> str:
        job, hints = status.job, []
        if not status.num_workers:
            hints.append(self.say("no_worker"))
        elif status.left_s:
            hints.append(self.say("left", seconds=max(status.left_s, 1)))
        if status.position:
            return self._told(self.say("waits", position=status.position), " ".join(hints), part=0)
        part = job.done / job.total if job.total else 0.0
        return self._told(self.say("works", what=self.say(what).lower()), " ".join(hints), part=part)


def _need_face(desk: Desk) -> None:
    if not desk.now.scene.faces:
        raise InputError("the photo shows no face any more", hint="go a step back")


def _given(value: Any) -> Any:
    if not value:
        raise InputError("a picture is missing", hint="drop one into the field of this tool")
    return value


def _marked(image: Image, points: Sequence[tuple[float, float]]) -> Image:
    """Draw points of a drag, joined by a line."""
    import PIL.ImageDraw

    marked = image.convert("RGB")
    pen = PIL.ImageDraw.Draw(marked)
    if len(points) > 1:
        pen.line([xy for point in points for xy in point], "white", 3)
    for (x, y), colour in zip(points, ("#d9622f", "#3f7fd0"), strict=False):
        pen.ellipse((x - 6, y - 6, x + 6, y + 6), colour, "white", 2)
    return marked
