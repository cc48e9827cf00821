"""What else there is: recipes done again, the report of a lab, where pairs are sorted."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from mien.app.web.parts import Parts

__all__ = ["draw"]

LABEL_COMMAND = "mien pairs label"


def draw(parts: Parts) -> Callable[[], None]:
    """Draw the tabs, and return what binds them once all parts are there."""
    say, bind, acts = parts.say, parts.bind, parts.acts
    with parts.tab("replay"):
        recipe = gr.File(label=say("replay_file"), type="binary", file_types=[".json"], elem_id="replay-file")
        parts.button("replay")
    with parts.tab("lab"):
        photos = parts.pictures("lab_photos")
        parts.button("lab")
    with gr.Tab(say("labels"), elem_id="tab-labels"):
        gr.HTML(f'<p class="help">{say("labels_help", command=f"<code>{LABEL_COMMAND}</code>")}</p>')

    def listen() -> None:
        bind(parts["replay_button"].click, acts.replay, [recipe])
        bind(parts["lab_button"].click, acts.lab, [photos])

    return listen
