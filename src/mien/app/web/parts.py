"""The parts of a page by name, and how acts are bound to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
from gradio.events import Dependency

from mien.app.web.acts import Acts
from mien.app.web.stage import Act, Answer, Set, Wait

__all__ = ["Parts"]


def _bytes_of(payload: Any) -> bytes | None:
    """Return an upload as it came; nothing of its name is used."""
    return None if payload is None or payload.path is None else Path(payload.path).read_bytes()


class Parts(dict[str, Any]):
    """The parts of a page by name.

    Args:
        acts: what they start.
    """

    def __init__(self, acts: Acts) -> None:
        super().__init__()
        self.acts, self.say = acts, acts.say

    # ---- Kinds of parts ---------------------------------------------------------------------------------------------

    @contextmanager
    def tab(self, key: str) -> Iterator[None]:
        """Make a tool's place, with a sentence on what it does."""
        with gr.Tab(self.say(key), elem_id=f"tab-{key}"):
            gr.HTML(f'<p class="help">{self.say(f"{key}_help")}</p>')
            yield

    def upload(self, label: str, **options: Any) -> gr.Image:
        """Return a place for a picture, which comes in as bytes: `trust.gate.admit` is the only one who opens it.

        Such a place must not be told properties: Gradio would make it anew without `_bytes_of`, and open the picture
        itself. A class of its own would let Gradio write a stub beside this file.
        """
        place = gr.Image(label=label, buttons=[], placeholder=self.say("drop"), **options)
        place.preprocess = _bytes_of  # type: ignore[method-assign,assignment]
        return place

    def picture(self, key: str) -> gr.Image:
        """Return a small place for somebody else's picture."""
        return self.upload(self.say(key), sources=["upload"], height=170, elem_id=key.replace("_", "-"))

    def pictures(self, key: str) -> gr.File:
        """Return a place for pictures of several people."""
        kinds = dict(file_count="multiple", type="binary", file_types=["image"])
        return gr.File(label=self.say(key), height=150, elem_id=key.replace("_", "-"), **kinds)  # type: ignore[arg-type]

    def button(self, key: str) -> None:
        """Make the button of a tool."""
        self[f"{key}_button"] = gr.Button(self.say(f"{key}_button"), variant="primary", elem_id=f"{key}-button")

    # ---- Binding ----------------------------------------------------------------------------------------------------

    def _values(self, answer: Answer) -> dict[Any, Any]:
        return {
            self[name]: gr.update(**value.props) if isinstance(value, Set) else value
            for name, value in answer.items()
            if name in self
        }

    async def _answers(
        self, act: Act, request: gr.Request, values: Sequence[Any], clears: Sequence[Any] = ()
    ) -> AsyncIterator[dict[Any, Any]]:
        """Do an act in threads, none of which waits; whoever goes away ends it, and no job that it asked for."""
        answers, cleared = self.acts.run(act, request.session_hash or "", *values), dict.fromkeys(clears)
        yield cleared | {self["status"]: gr.update()}  # of an act that says nothing Gradio would empty every part
        try:
            while (answer := await anyio.to_thread.run_sync(next, answers, None)) is not None:
                if isinstance(answer, Wait):
                    await asyncio.sleep(answer.seconds)
                elif shown := self._values(answer):
                    yield cleared | shown
        finally:
            answers.close()  # type: ignore[attr-defined]

    def bind(
        self,
        event: Callable[..., Dependency],
        act: Act,
        inputs: Sequence[Any] = (),
        *,
        clears: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        """Let an event of a part start an act.

        Args:
            event: say a button's click.
            act: to start.
            inputs: whose values it is given.
            clears: places for pictures that are empty afterwards.
            options: Gradio's.
        """

        async def run(request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
            async for shown in self._answers(act, request, values, clears):
                yield shown

        self._listen(event, run, inputs, options, clears)

    def bind_choice(self, event: Callable[..., Dependency], act: Act) -> None:
        """Let a choice in a gallery, or a click into a picture, start an act with its place."""

        async def run(chosen: gr.SelectData, request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
            place = chosen.index if isinstance(chosen.index, list | tuple) else [chosen.index]
            async for shown in self._answers(act, request, place):
                yield shown

        self._listen(event, run, (), {})

    def bind_token(self, event: Callable[..., Dependency], token: Any, script: str) -> None:
        """Let a page that is loaded go on where its browser's tab was; `script` returns the tab's token."""

        async def run(request: gr.Request, own: str) -> AsyncIterator[dict[Any, Any]]:
            self.acts.desks.join(request.session_hash or "", own or "")
            async for shown in self._answers(self.acts.resume, request, ()):
                yield shown

        self._listen(event, run, [token], {"js": script})

    def _listen(
        self, event: Any, run: Any, inputs: Sequence[Any], options: dict[str, Any], clears: Sequence[Any] = ()
    ) -> None:
        shown = dict(show_progress="hidden", concurrency_limit=None, api_visibility="private")
        event(run, list(inputs), [*self.values(), *clears], **(shown | options))
