"""Tools on the chosen face: sliders, moods, styles, dragged points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from mien.app.web.errands import POINTS
from mien.app.web.parts import Parts
from mien.app.web.stage import LIVE_PX
from mien.app.web.texts import direction_name
from mien.edits.expression import EMOTIONS
from mien.errors import MienError

__all__ = ["draw"]

SPAN = 3.0  # how far sliders go at most, in standard deviations
CLICKED = "clicked"


def draw(parts: Parts) -> Callable[[], None]:
    """Draw the tabs, and return what binds them once all parts are there."""
    say, bind, acts = parts.say, parts.bind, parts.acts
    with parts.tab("adjust"):
        sliders = _sliders(parts)
        parts["edit_button"] = gr.Button(say("apply"), elem_id="edit-button")
    with parts.tab("express"):
        names = gr.Radio([(say(name), name) for name in EMOTIONS], value=next(iter(EMOTIONS)), label=say("emotion"))
        strength = gr.Slider(0, 1.5, 1, step=0.05, label=say("strength"))
        like = parts.picture("from_photo")
        parts.button("express")
    with parts.tab("style"):
        seed = gr.Number(5, label=say("seed"), precision=0, minimum=0, maximum=2**31, elem_id="seed")
        picture = parts.picture("style_photo")
        amount = gr.Slider(0, 1, 0.9, step=0.05, label=say("amount"))
        keep = gr.Checkbox(False, label=say("keep_colour"))
        parts.button("style")
    with parts.tab("drag"):
        aim = _drag(parts)
        parts.button("drag")

    def listen() -> None:
        for slider in sliders:
            bind(slider.input, acts.live, sliders, trigger_mode="always_last")
            bind(slider.release, acts.edit, sliders, trigger_mode="always_last")
        bind(parts["edit_button"].click, acts.edit, sliders)
        bind(parts["express_button"].click, acts.express, [names, strength, like])
        bind(parts["style_button"].click, acts.style, [picture, seed, amount, keep])
        parts.bind_choice(parts["drag_face"].select, acts.point)
        for one in aim:
            bind(one.input, acts.aim, aim, trigger_mode="always_last")
        bind(parts["drag_button"].click, acts.drag)

    return listen


def _sliders(parts: Parts) -> list[Any]:
    """One slider for each direction, as far as faces stay themselves; a network that is away has none."""
    try:
        directions = parts.acts.desks.studio.directions.directions
    except MienError:
        directions = {}
    if not directions:
        gr.HTML(f'<p class="help">{parts.say("no_directions")}</p>')
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


def _drag(parts: Parts) -> list[Any]:
    """A face to click on, and the same by names and numbers for those who do not click."""
    say = parts.say
    parts["drag_face"] = gr.Image(
        label=say("drag_face"), interactive=False, height=LIVE_PX + 20, elem_id="drag-face", buttons=[]
    )
    named = [(say(f"point_{name}"), name) for name in (CLICKED, *POINTS)]
    return [
        gr.Radio(named, value=CLICKED, label=say("drag_point"), elem_id="drag-point"),
        gr.Slider(-20, 20, 0, step=1, label=say("drag_right"), elem_id="drag-right"),
        gr.Slider(-20, 20, 0, step=1, label=say("drag_down"), elem_id="drag-down"),
    ]
