"""One HTML page with tables, pictures and curves, that needs nothing beside it but its pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #faf9f6; max-width: 1100px; margin: 2em auto; }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; border-top: 1px solid #ddd; padding-top: 1em }
table { border-collapse: collapse } td, th { padding: 2px 12px 2px 0; text-align: left; vertical-align: top }
td + td { font-variant-numeric: tabular-nums } img { max-width: 100% } svg text { font: 11px system-ui, sans-serif }
"""
COLOURS = ("#2457a7", "#c2571a", "#2f7d4f", "#8a3ea8", "#9a7b00", "#777777", "#b3204d")
WIDTH, HEIGHT, MARGIN = 520, 260, 46


def table(numbers: Mapping[str, object]) -> str:
    """Rows of a name and a number."""
    cells = ((html.escape(name), f"{v:.4g}" if isinstance(v, float) else v) for name, v in numbers.items())
    return "<table>" + "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in cells) + "</table>"


def picture(path: Path, caption: str) -> str:
    """A picture that lies beside the page."""
    return f'<figure><img src="{html.escape(path.name)}"><figcaption>{html.escape(caption)}</figcaption></figure>'


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
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="{MARGIN + 6}" y="{16 + 14 * i}" fill="{colour}">{html.escape(name)}</text>')
    lines += [f'<text x="2" y="{y}">{value:.3g}</text>' for value, y in ((y1, 26), (y0, HEIGHT - MARGIN / 2))]
    lines += [f'<text x="{x}" y="{HEIGHT - 6}">{value:.3g}</text>' for value, x in ((x0, MARGIN), (x1, WIDTH - MARGIN))]
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{"".join(lines)}</svg>'
    return f"<figure>{svg}<figcaption>{html.escape(title)}</figcaption></figure>"


def page(title: str, sections: Mapping[str, Sequence[str]]) -> str:
    """The page: a heading for each section, under it what it holds."""
    body = "".join(f"<h2>{html.escape(name)}</h2>\n" + "\n".join(parts) + "\n" for name, parts in sections.items())
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f"<!doctype html><html>{head}<h1>{html.escape(title)}</h1>\n{body}</html>\n"
