"""What the page shows: answers of acts by part, the line of status, the photo before and after.

Acts know no Gradio. Whatever goes wrong becomes words in the part `status`; the unexpected becomes a number that the
log holds too.
"""

from __future__ import annotations

import base64
import html
import io
import logging
import secrets
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
from PIL.Image import Image

from mien.app.jobs.queue import Queue
from mien.app.web.desk import Desk
from mien.app.web.desks import Desks
from mien.app.web.faults import error_words
from mien.app.web.texts import say
from mien.errors import InputError, MienError

__all__ = ["LIVE_PX", "Act", "Answer", "Set", "Stage", "Wait", "data_address", "given", "large", "need_face", "put"]

FACE_PX, LIVE_PX = 128, 256

Answer = dict[str, Any]
"""Part of the page => its value, or what to set of it."""


@dataclass(frozen=True)
class Set:
    """Properties of a part, say whether it is visible."""

    props: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    """An act goes on after so many seconds, and holds nothing meanwhile."""

    seconds: float


Act = Callable[..., Iterator[Answer | Wait]]

logger = logging.getLogger(__name__)


def put(**props: Any) -> Set:
    """Return properties of a part."""
    return Set(props)


def large(image: Image, px: int) -> Image:
    """Return a square picture at another side."""
    return image.resize((px, px), PIL.Image.Resampling.BICUBIC)


def data_address(data: bytes, kind: str) -> str:
    """Return bytes as an address that holds them.

    >>> data_address(b"mien", "text/plain")
    'data:text/plain;base64,bWllbg=='
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _inline(image: Image) -> str:
    file = io.BytesIO()
    large(image, LIVE_PX).save(file, "JPEG", quality=90)
    return data_address(file.getvalue(), "image/jpeg")


def need_face(desk: Desk) -> None:
    """Refuse to change a face where there is none."""
    if not desk.now.scene.faces:
        raise InputError("the photo shows no face any more", hint="go a step back")


def given(value: Any) -> Any:
    """Return what a visitor has put into a field, or refuse to go on without."""
    if not value:
        raise InputError("a picture is missing", hint="drop one into the field of this tool")
    return value


class Stage:
    """One language's page.

    Args:
        desks: of all visitors.
        queue: for what takes longer than a moment.
        lang: one of `texts.LANGUAGES`.
    """

    def __init__(self, desks: Desks, queue: Queue, lang: str) -> None:
        self.desks, self.queue, self.lang = desks, queue, lang

    def run(self, act: Act, session: str, *values: Any) -> Iterator[Answer | Wait]:
        """Do an act for a browser's session; errors are told in words."""
        try:
            yield from act(self.desks.of(session), *values)
        except MienError as err:
            yield self.wrong(*error_words(self.lang, err))
        except Exception as err:
            number = secrets.token_hex(4)
            where = "".join(traceback.format_tb(err.__traceback__))
            logger.error("page %s: %s at\n%s", number, type(err).__name__, where)
            yield self.wrong(self.say("broken"), self.say("broken_hint", number=number))

    def say(self, key: str, **values: object) -> str:
        """Return a text in the page's language."""
        return say(self.lang, key, **values)

    def told(self, words: str, hint: str = "", *, kind: str = "", part: float | None = None) -> str:
        """Return a line of the part `status`; `part` 0..1 is drawn as a bar."""
        role = "alert" if kind == "bad" else "status"
        bar = "" if part is None else f'<progress value="{part:.3f}" max="1"></progress>'
        more = f"<span>{hint}</span>" if hint else ""
        return f'<div class="told {kind}" role="{role}"><b>{words}</b>{more}{bar}</div>'

    def wrong(self, words: str, hint: str = "") -> Answer:
        """Return that something could not be done; both are HTML."""
        return self.idle() | {"status": self.told(words, hint, kind="bad")}

    def idle(self) -> Answer:
        """Return that no job runs any more."""
        return {"cancel": put(visible=False), "preview": ""}

    def view(self, desk: Desk) -> Answer:
        """Return the photo before and after, the faces, and the history."""
        now = desk.now
        crops = [large(desk.crop(i), FACE_PX) for i in range(len(now.scene.faces))]
        history = [(str(path), self.say(one.what)) for path, one in zip(desk.thumbs(), desk.moments, strict=True)]
        return {
            "place": put(visible=False),
            "invent": put(visible=False),
            "result": put(value=tuple(map(str, desk.shown())), visible=True),
            "faces": put(value=crops, selected_index=desk.face if crops else None, visible=len(crops) > 1),
            "history": put(value=history, visible=len(history) > 1),
            "tools": put(visible=True),
            "steps": put(visible=False),
            "buttons": put(visible=True),
            "undo": put(interactive=len(history) > 1),
            "live": self.live_of(desk),
            "drag_face": put(value=large(desk.crop(desk.face), LIVE_PX) if crops else None),
        } | self.sliders(desk)

    def sliders(self, desk: Desk) -> Answer:
        """Return where the sliders of the chosen face stand."""
        return {f"set:{name}": desk.strengths.get(name, 0.0) for name in desk.studio.directions.directions}

    def live_of(self, desk: Desk) -> str:
        """Return the small face before and after the sliders."""
        return self.pair(*desk.live(desk.strengths)) if desk.now.scene.faces else ""

    def pair(self, before: Image, after: Image) -> str:
        """Return two small faces beside each other."""
        pictures = ((before, self.say("before")), (after, self.say("after")))
        tiles = (
            f'<figure><img src="{_inline(image)}" alt="{html.escape(word)}"><figcaption>{html.escape(word)}'
            "</figcaption></figure>"
            for image, word in pictures
        )
        return f'<div class="pair">{"".join(tiles)}</div>'

    def show(self, desk: Desk, words: str, hint: str = "") -> Iterator[Answer]:
        """Show the present state, then offer it as a file."""
        yield self.view(desk) | self.idle() | {"status": self.told(words, html.escape(hint), kind="good")}
        yield {"download": put(value=str(desk.result()), interactive=True)}

    def done(self, desk: Desk, key: str, hint: str = "") -> Iterator[Answer]:
        """Show the present state after a tool."""
        yield from self.show(desk, self.say("done", what=self.say(key).lower()), hint)

    def empty(self, key: str) -> Answer:
        """Return a page without a photo, and what it says."""
        hidden = ("result", "faces", "history", "tools", "buttons", "cancel", "made")
        return {name: put(visible=False) for name in hidden} | {
            "place": put(visible=True),
            "invent": put(visible=True),
            "steps": put(visible=True),
            "live": "",
            "preview": "",
            "chart": "",
            "download": put(value=None, interactive=False),
            "recipe": put(value=None, visible=False),
            "status": self.told(self.say(key)),
        }
