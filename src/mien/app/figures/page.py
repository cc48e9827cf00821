"""One HTML page of tables, pictures and curves, that needs nothing beside it but its pictures.

It runs no scripts, follows the reader's choice of dark or light, and prints. Words are escaped here, and nowhere else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

__all__ = [
    "Chapter",
    "Shown",
    "bars",
    "chart",
    "folded",
    "link",
    "page",
    "paragraph",
    "picture",
    "rows",
    "slug",
    "table",
    "tiles",
    "video",
    "words",
]

STYLE = """
:root { color-scheme: light dark; --paper: #fcfbf8; --card: #fff; --ink: #202226; --soft: #6b6d74; --rule: #e0ddd6;
  --accent: #d9622f }
@media (prefers-color-scheme: dark) { :root { --paper: #16171a; --card: #1f2125; --ink: #eceae5; --soft: #a0a2aa;
  --rule: #34363c; --accent: #f08a5a } }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
  background: var(--paper); max-width: 1180px; margin: 0 auto; padding: 40px 28px 80px }
header { border-left: 8px solid var(--accent); padding-left: 22px }
h1 { font-size: 2.5rem; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 6px }
h2 { font-size: 1.5rem; letter-spacing: -.01em; margin: 0 0 4px } h3 { font-size: 1rem; margin: 26px 0 8px }
p { margin: 0 0 14px; max-width: 78ch } .soft, figcaption, th, summary { color: var(--soft) }
a { color: var(--accent) }
nav { margin: 22px 0 0; display: flex; flex-wrap: wrap; gap: 8px }
nav a { text-decoration: none; padding: 4px 12px; border: 1px solid var(--rule); border-radius: 99px;
  color: var(--ink) }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 26px 0 0 }
.facts div { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 10px 18px }
.facts b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; letter-spacing: -.01em }
.facts span { color: var(--soft); font-size: .82rem }
section { border-top: 1px solid var(--rule); margin-top: 44px; padding-top: 26px }
.scroll { overflow-x: auto; margin: 0 -6px; padding: 0 6px 6px }
.tiles { display: grid; grid-template-columns: repeat(var(--n), minmax(96px, var(--w))); gap: 14px; margin: 14px 0 }
figure { margin: 0 } .tiles img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 10px; display: block }
.tiles .wide img { aspect-ratio: auto } .tiles .head img { outline: 3px solid var(--accent); outline-offset: -3px }
figcaption { font-size: .8rem; line-height: 1.35; padding-top: 5px; text-align: center; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums }
figcaption b { color: var(--ink); font-weight: 600; display: block }
.bars { display: grid; grid-template-columns: minmax(3em, auto) 1fr auto; gap: 3px 8px; align-items: center;
  font-size: .78rem; text-align: left; padding-top: 4px } .bars span { overflow: hidden; text-overflow: ellipsis }
.bars i { background: var(--rule); height: 9px; border-radius: 9px; overflow: hidden } .bars i:before { content: "";
  display: block; height: 100%; width: var(--part); background: var(--accent) }
table { border-collapse: collapse; font-size: .92rem } td, th { padding: 5px 20px 5px 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid var(--rule) }
th { font-weight: 500 } td + td { font-variant-numeric: tabular-nums }
code { font-size: .85em; overflow-wrap: anywhere }
details { margin-top: 12px } summary { cursor: pointer } video { width: min(100%, 384px); border-radius: 12px }
.bad { border-left: 4px solid var(--accent); padding-left: 14px } svg { max-width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft) } footer { margin-top: 60px; color: var(--soft) }
@media print { :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #bbb; color-scheme: light }
  body { max-width: none; padding: 0; font-size: 10pt } nav { display: none } figure, tr { break-inside: avoid }
  h2 { break-after: avoid } .scroll { overflow: visible } .tiles { grid-template-columns: repeat(var(--n), 1fr) } }
"""
COLOURS = ("#d9622f", "#3f7fd0", "#3c9a63", "#9a55ba", "#b0902a", "#888888", "#c9426b")
WIDTH, HEIGHT, MARGIN = 520, 260, 46


@dataclass(frozen=True)
class Shown:
    """A picture beside the page: its relative address, what it shows, and what stands under it.

    Attributes:
        source: relative to the page; empty leaves the place free.
        title: in bold.
        text: under the title.
        shares: name => share of 1, drawn as bars.
        is_head: it names its row or column.
        is_wide: it is no square.
    """

    source: str
    title: str = ""
    text: str = ""
    shares: Mapping[str, float] | None = None
    is_head: bool = False
    is_wide: bool = False


@dataclass(frozen=True)
class Chapter:
    """A part of the page: a name for its address, a heading, and what is under it, as HTML."""

    key: str
    title: str
    parts: Sequence[str]


def slug(text: str) -> str:
    """Return a name for files and addresses.

    >>> slug("Anna B. (2)")
    'Anna-B.-2'
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "unnamed"


def words(value: object) -> str:
    """Return a value as text for HTML, numbers with four digits."""
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph of one of the page's kinds: soft, bad, or none."""
    return f'<p class="{kind}">{words(text)}</p>' if kind else f"<p>{words(text)}</p>"


def table(numbers: Mapping[str, object]) -> str:
    """Rows of a name and a value."""
    cells = "".join(f"<tr><td>{words(name)}</td><td>{words(v)}</td></tr>" for name, v in numbers.items())
    return f'<div class="scroll"><table>{cells}</table></div>'


def rows(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table under a line of headings."""
    top = "".join(f"<th>{words(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{words(v)}</td>" for v in line) + "</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def folded(summary: str, inside: str) -> str:
    """What is only seen when it is opened; printed pages leave it closed."""
    return f"<details><summary>{words(summary)}</summary>{inside}</details>"


def bars(shares: Mapping[str, float]) -> str:
    """A bar for everybody's share of 1."""
    parts = (
        f'<span>{words(name)}</span><i style="--part:{100 * min(max(share, 0), 1):.1f}%"></i><span>{share:.2f}</span>'
        for name, share in shares.items()
    )
    return f'<div class="bars">{"".join(parts)}</div>'


def _tile(shown: Shown) -> str:
    if not shown.source:
        return "<div></div>"
    kind = " ".join(name for name, is_so in (("head", shown.is_head), ("wide", shown.is_wide)) if is_so)
    title = f"<b>{words(shown.title)}</b>" if shown.title else ""
    caption = title + words(shown.text) + (bars(shown.shares) if shown.shares else "")
    alt = words(f"{shown.title} {shown.text}".strip())
    image = f'<img src="{quote(shown.source)}" alt="{alt}" loading="lazy">'
    return f'<figure class="{kind}">{image}<figcaption>{caption}</figcaption></figure>'


def tiles(lines: Sequence[Sequence[Shown]], *, widest_px: int = 170) -> str:
    """Rows of pictures under one another."""
    columns = max((len(line) for line in lines), default=0)
    cells = "".join(_tile(shown) for line in lines for shown in (*line, *[Shown("")] * (columns - len(line))))
    return f'<div class="scroll"><div class="tiles" style="--n:{columns};--w:{widest_px}px">{cells}</div></div>'


def link(source: str, text: str) -> str:
    """The way to a file beside the page."""
    return f'<p><a href="{quote(source)}">{words(text)}</a></p>'


def video(source: str) -> str:
    """A video beside the page, played where the reader wants it."""
    return f'<video src="{quote(source)}" controls loop muted playsinline></video>'


def picture(source: str, caption: str) -> str:
    """One picture of any shape, across the page."""
    return tiles([[Shown(source, text=caption, is_wide=True)]], widest_px=1100)


def chart(title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Curves of (x, y) over one another as an inline SVG."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points, strict=True))

    def place(x: float, y: float) -> str:
        across = MARGIN + (WIDTH - 2 * MARGIN) * (x - x0) / ((x1 - x0) or 1)
        down = HEIGHT - MARGIN / 2 - (HEIGHT - MARGIN) * (y - y0) / ((y1 - y0) or 1)
        return f"{across:.1f},{down:.1f}"

    lines = []
    for i, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(place(*point) for point in curve)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        lines.append(f'<text x="{MARGIN + 6}" y="{16 + 15 * i}" style="fill:{colour}">{words(name)}</text>')
    lines += [f'<text x="2" y="{y}">{value:.3g}</text>' for value, y in ((y1, 26), (y0, HEIGHT - MARGIN / 2))]
    lines += [f'<text x="{x}" y="{HEIGHT - 6}">{value:.3g}</text>' for value, x in ((x0, MARGIN), (x1, WIDTH - MARGIN))]
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{"".join(lines)}</svg>'
    return f"<figure>{svg}<figcaption>{words(title)}</figcaption></figure>"


def page(title: str, text: str, chapters: Sequence[Chapter], *, facts: Mapping[str, object] | None = None) -> str:
    """The page: its title, a line under it, its facts at a glance, the way to its chapters, and the chapters."""
    links = "".join(f'<a href="#{quote(c.key)}">{words(c.title)}</a>' for c in chapters)
    glance = "".join(f"<div><b>{words(v)}</b><span>{words(k)}</span></div>" for k, v in (facts or {}).items())
    body = "\n".join(
        f'<section id="{words(c.key)}"><h2>{words(c.title)}</h2>\n' + "\n".join(c.parts) + "</section>"
        for c in chapters
    )
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{words(title)}</title><style>{STYLE}</style>"
    )
    top = f'<header><h1>{words(title)}</h1><p class="soft">{words(text)}</p></header>'
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{top}\n'
        f'<div class="facts">{glance}</div>\n<nav>{links}</nav>\n{body}\n</body></html>\n'
    )
