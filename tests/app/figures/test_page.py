"""The page: what it shows is escaped, its pictures are beside it, and no script runs."""

from __future__ import annotations

import re

import pytest

from mien.app.figures.page import (
    Chapter,
    Shown,
    bars,
    chart,
    folded,
    link,
    page,
    paragraph,
    rows,
    slug,
    table,
    tiles,
    video,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("anna", "anna"), ("Anna B. (2)", "Anna-B.-2"), ("../../etc", "etc"), ("", "unnamed"), ("<é ü>", "é-ü")],
)
def test_slugs(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_words_are_escaped_everywhere() -> None:
    bad = "<script>&\"'"
    parts = [
        paragraph(bad, kind="bad"),
        table({bad: bad}),
        rows([bad], [[bad]]),
        bars({bad: 0.5}),
        link(bad, bad),
        video(bad),
        folded(bad, ""),
        chart(bad, {bad: [(0, 0), (1, 1)]}),
        tiles([[Shown(bad, bad, bad, {bad: 1.0})]]),
    ]
    text = page(bad, bad, [Chapter(bad, bad, parts)], facts={bad: bad})
    assert "<script" not in text and "&lt;script&gt;" in text
    for value in re.findall(r'(?:href|src)="([^"]*)"', text):
        assert "<" not in value and "'" not in value


def test_every_place_of_a_grid_is_filled() -> None:
    text = tiles([[Shown(""), Shown("a.png", "A")], [Shown("b.png", text="b")]])
    assert "--n:2" in text and text.count("<figure") == 2 and text.count("<div></div>") == 2
    assert 'alt="A"' in text and 'alt="b"' in text


def test_numbers_have_four_digits_and_bars_stay_in_their_frame() -> None:
    assert "<td>0.1235</td>" in table({"x": 0.123456}) and "<td>12</td>" in table({"x": 12})
    assert "--part:100.0%" in bars({"a": 1.7}) and "--part:0.0%" in bars({"a": -0.2})


def test_a_chart_of_nothing_is_nothing() -> None:
    assert chart("empty", {}) == "" and chart("empty", {"a": []}) == ""
    assert "<polyline" in chart("flat", {"a": [(1.0, 2.0), (1.0, 2.0)]})


def test_the_page_reads_in_the_dark_and_prints() -> None:
    text = page("t", "u", [Chapter("k", "K", [])])
    assert "prefers-color-scheme: dark" in text and "@media print" in text and 'href="#k"' in text and 'id="k"' in text
    assert "<script" not in text and "http" not in text
