"""How the page looks: the photo with what is said of it on one side, the tools on the other."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from mien.app.web.acts import Acts
from mien.app.web.parts import Parts
from mien.app.web.tabs import drawing, face, more, people
from mien.app.web.texts import LANGUAGES

__all__ = ["CSS", "build", "theme"]

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")

CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")

GROUPS = {"face": face.draw, "drawing": drawing.draw, "people": people.draw, "more": more.draw}

TOKEN = """() => {
  const held = sessionStorage.getItem("mien");
  const made = () => [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, "0")).join("");
  const token = held || made();
  sessionStorage.setItem("mien", token);
  return token;
}"""
"""Returns what a browser's tab is known by, also after it loads the page anew; another tab has its own."""


def theme() -> gr.themes.Base:
    """Return the colours and letters of the page; nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue="orange", neutral_hue="stone", radius_size="lg", font=SANS, font_mono=("monospace",)
    )


def build(acts: Acts, *, keep_s: float) -> gr.Blocks:
    """Return the page of one language.

    Args:
        acts: what its parts start.
        keep_s: how long pictures are kept, which it says.
    """
    say, parts = acts.say, Parts(acts)
    with gr.Blocks(title="mien", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_head(acts))
        with gr.Row(elem_id="desk"):
            with gr.Column(scale=5, min_width=320, elem_id="stage"):
                drop = _stage(parts)
            with gr.Column(scale=5, min_width=320):
                parts["steps"] = gr.HTML(_steps(acts))
                parts["faces"] = gr.Gallery(
                    label=say("faces"), columns=6, visible=False, allow_preview=False, elem_id="faces"
                )
                parts["live"] = gr.HTML(elem_id="live")
                binders = []
                with gr.Tabs(visible=False, elem_id="tools", overflow_behavior="wrap") as parts["tools"]:
                    for key, draw in GROUPS.items():
                        with gr.Tab(say(f"group_{key}"), elem_id=f"group-{key}"), gr.Tabs(overflow_behavior="wrap"):
                            binders.append(draw(parts))
        _foot(parts, keep_s)
        token = gr.Textbox(visible=False)
        _listen(parts, drop)
        for bind in binders:
            bind()
        parts.bind_token(page.load, token, TOKEN)
    return page


def _head(acts: Acts) -> str:
    links = " ".join(
        f'<a href="/{lang}/" hreflang="{lang}" lang="{lang}"{" aria-current=page" * (lang == acts.lang)}>{name}</a>'
        for lang, name in LANGUAGES.items()
    )
    return f'<header class="mien"><h1>mien</h1><p>{acts.say("tagline")}</p><nav>{links}</nav></header>'


def _steps(acts: Acts) -> str:
    keys = ("step_photo", "step_change", "step_take")
    cards = "".join(f"<li><b>{acts.say(key)}</b>{acts.say(f'{key}_help')}</li>" for key in keys)
    return f'<ol class="steps">{cards}</ol>'


def _stage(parts: Parts) -> gr.Image:
    """The photo, what is said of it, and what is done with all of it; returned is where a photo comes in."""
    say = parts.say
    with gr.Column(elem_id="place") as parts["place"]:
        drop = parts.upload(say("photo"), sources=["upload", "webcam", "clipboard"], height=420, elem_id="drop")
    parts["invent"] = gr.Button(say("invent"), elem_id="invent")
    parts["result"] = gr.ImageSlider(
        label=say("result"), visible=False, interactive=False, max_height=620, elem_id="result", buttons=["fullscreen"]
    )
    parts["status"] = gr.HTML(f'<div class="told" role="status"><b>{say("welcome")}</b></div>', elem_id="status")
    parts["preview"] = gr.HTML(elem_id="preview")
    parts["cancel"] = gr.Button(say("cancel"), visible=False, variant="stop", elem_id="cancel")
    with gr.Column(visible=False, elem_id="made") as parts["made"]:
        parts["made_view"] = gr.HTML(elem_id="made-view")
        parts["made_file"] = gr.DownloadButton(say("download"), variant="primary", elem_id="made-file")
    with gr.Row(visible=False, elem_id="buttons") as parts["buttons"]:
        parts["download"] = gr.DownloadButton(
            say("download"), size="md", variant="primary", elem_id="download", min_width=120
        )
        for name, label in (("undo", "undo"), ("reset", "reset"), ("new", "new"), ("write", "recipe")):
            parts[name] = gr.Button(say(label), elem_id=name, min_width=90, size="md")
    parts["recipe"] = gr.File(label=say("recipe"), visible=False, interactive=False, elem_id="recipe")
    parts["history"] = gr.Gallery(
        label=say("history"), columns=6, object_fit="cover", visible=False, allow_preview=False, elem_id="history"
    )
    return drop


def _foot(parts: Parts, keep_s: float) -> None:
    """What is asked of visitors and promised to them."""
    say = parts.say
    gr.HTML(f'<p class="consent">{say("consent")} {say("kept", minutes=keep_s / 60)}</p>')
    parts["delete"] = gr.Button(say("delete"), size="sm", variant="secondary", elem_id="delete")
    gr.HTML(f'<footer>{say("machine")} <a href="/docs">{say("api")}</a></footer>')


def _listen(parts: Parts, drop: gr.Image) -> None:
    acts, bind = parts.acts, parts.bind
    bind(drop.input, acts.open, [drop], show_progress="full", show_progress_on=[drop])
    for name in ("invent", "undo", "reset", "cancel"):
        bind(parts[name].click, getattr(acts, name))
    bind(parts["new"].click, acts.new, clears=[drop])
    bind(parts["delete"].click, acts.forget, clears=[drop])
    bind(parts["write"].click, acts.recipe)
    parts.bind_choice(parts["faces"].select, acts.pick)
    parts.bind_choice(parts["history"].select, acts.go_back)
