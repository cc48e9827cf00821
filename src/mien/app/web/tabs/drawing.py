"""Tools that draw the photo: cartoons, paintings, styles in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gradio as gr

from mien.app.artists import adapted_styles, bundled_styles, draws_anything
from mien.app.web.errands import EVERYBODY, WHOLE
from mien.app.web.parts import Parts
from mien.app.web.texts import style_name

__all__ = ["draw"]

CHOSEN = "chosen_face"


def draw(parts: Parts) -> Callable[[], None]:
    """Draw the tabs, and return what binds them once all parts are there."""
    say, bind, acts = parts.say, parts.bind, parts.acts
    styles, adapted = bundled_styles(), adapted_styles()
    with parts.tab("toonify"):
        style = _styles(parts, styles, "toonify-style")
        whom = [EVERYBODY, CHOSEN, *([WHOLE] if any(map(draws_anything, styles)) else [])]
        who = gr.Radio([(say(one), one) for one in whom], value=EVERYBODY, label=say("toonify_who"))
        strength = gr.Slider(0, 1, 1, step=0.05, label=say("strength"))
        parts.button("toonify")
    with parts.tab("stylize"):
        painting = parts.picture("stylize_photo")
        spare = gr.Slider(0, 1, 0.5, step=0.1, label=say("spare"))
        parts.button("stylize")
    with parts.tab("sweep"):
        blended = _styles(parts, adapted, "sweep-style")
        parts.button("sweep")

    def listen() -> None:
        bind(parts["toonify_button"].click, acts.toonify, [style, strength, who])
        bind(parts["stylize_button"].click, acts.stylize, [painting, spare])
        bind(parts["sweep_button"].click, acts.sweep, [blended])

    return listen


def _styles(parts: Parts, names: Sequence[str], elem_id: str) -> gr.Radio:
    """A choice of drawing networks."""
    if not names:
        gr.HTML(f'<p class="help">{parts.say("no_styles")}</p>')
    choices = [(style_name(parts.acts.lang, name), name) for name in names]
    return gr.Radio(
        choices,
        value=names[0] if names else None,
        label=parts.say("toonify_style"),
        elem_id=elem_id,
        visible=bool(names),
    )
