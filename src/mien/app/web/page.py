"""How the page looks: Gradio's parts, and which act each of them starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from mien.app.web.acts import Act, Acts, Answer, Set
from mien.app.web.texts import LANGUAGES, direction_name
from mien.edits.expression import EMOTIONS
from mien.errors import MienError

__all__ = ["CSS", "build", "theme"]

SPAN = 3.0  # how far sliders go at most, in standard deviations
MOST_OTHERS = 3
AT_ONCE = 20  # visitors for whom the same act may run
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")

CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def _bytes_of(payload: Any) -> bytes | None:
    """Return an upload as it came; nothing of its name is used."""
    return None if payload is None or payload.path is None else Path(payload.path).read_bytes()


def _upload(label: str, **options: Any) -> gr.Image:
    """Return a place for a picture, which comes in as bytes, undecoded: `trust.admit` is the only one who opens it.

    A class of its own would let Gradio write a stub beside this file.
    """
    place = gr.Image(label=label, buttons=[], **options)
    place.preprocess = _bytes_of  # type: ignore[method-assign,assignment]
    return place


def theme() -> gr.themes.Base:
    """Return the colours and letters of the page; nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue="orange", neutral_hue="stone", radius_size="lg", font=SANS, font_mono=("monospace",)
    )


class _Parts(dict[str, Any]):
    """The parts of a page by name, and how acts are bound to them."""

    def __init__(self, acts: Acts) -> None:
        super().__init__()
        self.acts = acts

    def _values(self, answer: Answer) -> dict[Any, Any]:
        return {
            self[name]: gr.update(**value.props) if isinstance(value, Set) else value
            for name, value in answer.items()
            if name in self
        }

    def bind(self, event: Callable[..., Dependency], act: Act, inputs: Sequence[Any] = (), **options: Any) -> None:
        """Let an event of a part start an act."""

        def run(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
            for answer in self.acts.run(act, request.session_hash or "", *values):
                yield self._values(answer)

        self._listen(event, run, inputs, options)

    def bind_choice(self, event: Callable[..., Dependency], act: Act) -> None:
        """Let a choice in a gallery, or a click into a picture, start an act with its place."""

        def run(chosen: gr.SelectData, request: gr.Request) -> Iterator[dict[Any, Any]]:
            place = chosen.index if isinstance(chosen.index, list | tuple) else [chosen.index]
            for answer in self.acts.run(act, request.session_hash or "", *place):
                yield self._values(answer)

        self._listen(event, run, (), {})

    def _listen(self, event: Any, run: Any, inputs: Sequence[Any], options: dict[str, Any]) -> None:
        shown = dict(show_progress="hidden", concurrency_limit=AT_ONCE, api_visibility="private")
        event(run, list(inputs), list(self.values()), **(shown | options))


def build(acts: Acts, *, keep_s: float) -> gr.Blocks:
    """Return the page of one language.

    Args:
        acts: what its parts start.
        keep_s: how long pictures are kept, which it says.
    """
    say, parts = acts.say, _Parts(acts)
    with gr.Blocks(title="mien", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_head(acts))
        with gr.Row(elem_id="desk"):
            with gr.Column(scale=5, min_width=320):
                _stage(parts, keep_s)
            with gr.Column(scale=5, min_width=320):
                parts["steps"] = gr.HTML(_steps(acts))
                parts["faces"] = gr.Gallery(
                    label=say("faces"), columns=6, visible=False, allow_preview=False, elem_id="faces"
                )
                parts["live"] = gr.HTML(elem_id="live")
                with gr.Tabs(visible=False) as parts["tools"]:
                    inputs = _tools(parts)
        gr.HTML(f'<footer>{say("machine")} <a href="/docs">{say("api")}</a></footer>')
        _listen(parts, inputs)
    return page


def _head(acts: Acts) -> str:
    links = " ".join(
        f'<a href="/{lang}/" hreflang="{lang}" lang="{lang}"{" aria-current=page" * (lang == acts.lang)}>{name}</a>'
        for lang, name in LANGUAGES.items()
    )
    return f'<header class="mien"><h1>mien</h1><p>{acts.say("tagline")}</p><nav>{links}</nav></header>'


def _steps(acts: Acts) -> str:
    cards = ((acts.say("photo"), "welcome"), (acts.say("adjust"), "adjust_help"), (acts.say("download"), "machine"))
    return '<ol class="steps">' + "".join(f"<li><b>{name}</b>{acts.say(key)}</li>" for name, key in cards) + "</ol>"


def _stage(parts: _Parts, keep_s: float) -> None:
    say = parts.acts.say
    parts["drop"] = _upload(
        say("photo"),
        sources=["upload", "webcam", "clipboard"],
        height=420,
        placeholder=say("drop"),
        elem_id="drop",
    )
    parts["result"] = gr.ImageSlider(
        label=say("result"), visible=False, interactive=False, max_height=620, elem_id="result", buttons=["fullscreen"]
    )
    parts["status"] = gr.HTML(f'<div class="told" role="status"><b>{say("welcome")}</b></div>', elem_id="status")
    parts["cancel"] = gr.Button(say("cancel"), visible=False, variant="stop", elem_id="cancel")
    parts["invent"] = gr.Button(say("invent"), elem_id="invent")
    with gr.Row(visible=False, elem_id="buttons") as parts["buttons"]:
        parts["undo"] = gr.Button(say("undo"), elem_id="undo", min_width=90, size="md")
        parts["reset"] = gr.Button(say("reset"), elem_id="reset", min_width=90, size="md")
        parts["new"] = gr.Button(say("new"), elem_id="new", min_width=90, size="md")
        parts["write"] = gr.Button(say("recipe"), elem_id="write", min_width=90, size="md")
        parts["download"] = gr.DownloadButton(
            say("download"), size="md", variant="primary", elem_id="download", min_width=120
        )
    parts["recipe"] = gr.File(label=say("recipe"), visible=False, interactive=False, elem_id="recipe")
    parts["history"] = gr.Gallery(
        label=say("history"),
        columns=6,
        object_fit="cover",
        visible=False,
        allow_preview=False,
        elem_id="history",
    )
    minutes = say("kept", minutes=keep_s / 60)
    gr.HTML(f'<p class="consent">{say("consent")} {minutes}</p>')
    parts["delete"] = gr.Button(say("delete"), size="sm", variant="secondary", elem_id="delete")


@contextmanager
def _tab(parts: _Parts, key: str, *, has_help: bool = True) -> Iterator[None]:
    with gr.Tab(parts.acts.say(key), elem_id=f"tab-{key}"):
        if has_help:
            gr.HTML(f'<p class="help">{parts.acts.say(f"{key}_help")}</p>')
        yield


def _picture(parts: _Parts, key: str) -> gr.Image:
    say = parts.acts.say
    return _upload(say(key), sources=["upload"], height=170, elem_id=key, placeholder=say("drop"))


def _button(parts: _Parts, key: str) -> None:
    parts[f"{key}_button"] = gr.Button(parts.acts.say(f"{key}_button"), variant="primary", elem_id=f"{key}-button")


def _sliders(parts: _Parts) -> list[Any]:
    """One slider for each direction, as far as faces stay themselves; a network that is away has none."""
    say = parts.acts.say
    try:
        directions = parts.acts.desks.studio.directions.directions
    except MienError:
        directions = {}
    if not directions:
        gr.HTML(f'<p class="help">{say("no_directions")}</p>')
    made = []
    for name, direction in directions.items():
        low, high = direction.safe_range
        parts[f"set:{name}"] = gr.Slider(
            max(low, -SPAN),
            min(high, SPAN),
            0,
            step=0.05,
            label=direction_name(parts.acts.lang, name),
            elem_id=f"set-{name}",
            elem_classes="direction",
            buttons=["reset"],
        )
        made.append(parts[f"set:{name}"])
    return made


def _tools(parts: _Parts) -> dict[str, list[Any]]:
    """Draw the tools and return what each act is given."""
    say = parts.acts.say
    given: dict[str, list[Any]] = {}
    with _tab(parts, "adjust"):
        given["edit"] = _sliders(parts)
        parts["edit_button"] = gr.Button(say("apply"), elem_id="edit-button")
    with _tab(parts, "express", has_help=False):
        names = gr.Radio([(say(name), name) for name in EMOTIONS], value=next(iter(EMOTIONS)), label=say("emotion"))
        strength = gr.Slider(0, 1.5, 1, step=0.05, label=say("strength"))
        given["express"] = [names, strength, _picture(parts, "from_photo")]
        _button(parts, "express")
    with _tab(parts, "style"):
        seed = gr.Number(5, label=say("seed"), precision=0, minimum=0, maximum=2**31, elem_id="seed")
        picture = _picture(parts, "style_photo")
        amount = gr.Slider(0, 1, 0.9, step=0.05, label=say("amount"))
        given["style"] = [picture, seed, amount, gr.Checkbox(False, label=say("keep_colour"))]
        _button(parts, "style")
    with _tab(parts, "swap"):
        given["swap"] = [_picture(parts, "swap_photo")]
        _button(parts, "swap")
    with _tab(parts, "blend"):
        given["blend"] = _people(parts)
        parts["chart"] = gr.HTML()
        _button(parts, "blend")
    with _tab(parts, "drag"):
        parts["drag_face"] = gr.Image(
            label=say("drag_face"), interactive=False, height=300, elem_id="drag-face", buttons=[]
        )
        _button(parts, "drag")
    with _tab(parts, "stylize"):
        given["stylize"] = [_picture(parts, "stylize_photo"), gr.Slider(0, 1, 0.5, step=0.1, label=say("spare"))]
        _button(parts, "stylize")
    with _tab(parts, "replay"):
        given["replay"] = [
            gr.File(label=say("replay_file"), type="binary", file_types=[".json"], elem_id="replay-file")
        ]
        _button(parts, "replay")
    return given


def _people(parts: _Parts) -> list[Any]:
    say = parts.acts.say
    names = [say("you"), *(say("person", number=i + 2) for i in range(MOST_OTHERS))]
    pictures = gr.File(
        label=say("blend_photos"), file_count="multiple", type="binary", file_types=["image"], elem_id="blend-photos"
    )
    return [pictures, *(gr.Slider(0, 1, 0.5, step=0.05, label=name) for name in names)]


def _listen(parts: _Parts, inputs: dict[str, list[Any]]) -> None:
    acts, bind = parts.acts, parts.bind
    bind(parts["drop"].input, acts.open, [parts["drop"]], show_progress="full", show_progress_on=[parts["drop"]])
    for name in ("invent", "undo", "reset", "new", "cancel"):
        bind(parts[name].click, getattr(acts, name))
    bind(parts["delete"].click, acts.forget)
    bind(parts["write"].click, acts.recipe)
    for slider in inputs["edit"]:
        bind(slider.input, acts.live, inputs["edit"], trigger_mode="always_last")
        bind(slider.release, acts.edit, inputs["edit"], trigger_mode="always_last")
    for name in ("edit", "express", "style", "swap", "blend", "drag", "stylize", "replay"):
        bind(parts[f"{name}_button"].click, getattr(acts, name), inputs.get(name, ()))
    parts.bind_choice(parts["faces"].select, acts.pick)
    parts.bind_choice(parts["history"].select, acts.go_back)
    parts.bind_choice(parts["drag_face"].select, acts.point)
