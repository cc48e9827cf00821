"""Tools with somebody else: swaps, blends, morphs."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from mien.app.web.desk import MOST_OTHERS
from mien.app.web.parts import Parts

__all__ = ["draw"]


def draw(parts: Parts) -> Callable[[], None]:
    """Draw the tabs, and return what binds them once all parts are there."""
    say, bind, acts = parts.say, parts.bind, parts.acts
    with parts.tab("swap"):
        source = parts.picture("swap_photo")
        parts.button("swap")
    with parts.tab("blend"):
        others = parts.pictures("blend_photos")
        names = [say("you"), *(say("person", number=i + 2) for i in range(MOST_OTHERS))]
        for i, name in enumerate(names):
            parts[f"weight:{i}"] = gr.Slider(
                0, 1, 0.5, step=0.05, label=name, visible=i == 0, elem_id=f"weight-{i}", buttons=[]
            )
        parts["chart"] = gr.HTML()
        parts.button("blend")
    with parts.tab("morph"):
        ways = parts.pictures("morph_photos")
        seconds = gr.Slider(1, 10, 4, step=1, label=say("morph_s"), elem_id="morph-s")
        parts.button("morph")

    def listen() -> None:
        bind(parts["swap_button"].click, acts.swap, [source])
        weights = [parts[f"weight:{i}"] for i in range(MOST_OTHERS + 1)]
        for event in (others.change, *(weight.input for weight in weights)):
            bind(event, acts.people, [others, *weights], trigger_mode="always_last")
        bind(parts["blend_button"].click, acts.blend, [others, *weights])
        bind(parts["morph_button"].click, acts.morph, [ways, seconds])

    return listen
