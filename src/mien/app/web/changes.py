"""Acts that the page does at once: sliders, styles, blends, recipes."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from mien.app.web.desk import MOST_OTHERS, Desk
from mien.app.web.stage import Answer, Stage, given, need_face, put
from mien.errors import InputError

__all__ = ["Changes"]


class Changes(Stage):
    """What changes the chosen face without the queue."""

    def live(self, desk: Desk, *values: float) -> Iterator[Answer]:
        """Follow the sliders on the small face."""
        if desk.moments and desk.now.scene.faces:
            yield {"live": self.pair(*desk.live(self._strengths(desk, values)))}

    def edit(self, desk: Desk, *values: float) -> Iterator[Answer]:
        """Follow the sliders in the photo."""
        need_face(desk)
        desk.edit(self._strengths(desk, values))
        yield from self.done(desk, "adjust")

    def _strengths(self, desk: Desk, values: Sequence[float]) -> dict[str, float]:
        return dict(zip(desk.studio.directions.directions, values, strict=True))

    def style(self, desk: Desk, data: bytes | None, seed: float, amount: float, keep_colour: bool) -> Iterator[Answer]:
        """Take light and colour of a picture, or of an invented person."""
        need_face(desk)
        code = desk.studio.seed_code(int(seed or 0)) if data is None else desk.code(data)
        desk.style(code, amount=amount, keep_colour=keep_colour)
        yield from self.done(desk, "style")

    # ---- Blends -----------------------------------------------------------------------------------------------------

    def people(self, desk: Desk, pictures: Sequence[bytes] | None, *weights: float) -> Iterator[Answer]:
        """Look at everybody for a blend, and show a slider and a bar for each."""
        num = len(pictures or ())
        if num > MOST_OTHERS:
            raise InputError(f"{num} pictures are too many", hint=f"at most {MOST_OTHERS}")
        for data in pictures or ():
            desk.code(data)
        shown = {f"weight:{i}": put(visible=i <= num) for i in range(1, MOST_OTHERS + 1)}
        yield shown | {"chart": self._bars(weights[: num + 1]) if num else ""}

    def blend(self, desk: Desk, pictures: Sequence[bytes] | None, *weights: float) -> Iterator[Answer]:
        """Make a person of several."""
        need_face(desk)
        others = [desk.code(data) for data in given(pictures)]
        shares = list(weights[: len(others) + 1])
        desk.blend(others, shares)
        yield {"chart": self._bars(shares)}
        yield from self.done(desk, "blend")

    def _bars(self, weights: Sequence[float]) -> str:
        total = sum(weights) or 1.0
        names = [self.say("you"), *(self.say("person", number=i + 2) for i in range(len(weights) - 1))]
        rows = "".join(
            f'<span>{html.escape(name)}</span><i style="--part:{weight / total:.1%}"></i><b>{weight / total:.0%}</b>'
            for name, weight in zip(names, weights, strict=True)
        )
        return f'<div class="bars">{rows}</div>'

    # ---- Recipes ----------------------------------------------------------------------------------------------------

    def recipe(self, desk: Desk) -> Iterator[Answer]:
        """Write the recipe of what was done to the chosen face."""
        path = desk.write_recipe()
        yield {
            "recipe": put(value=str(path), visible=True),
            "status": self.told(self.say("done", what=self.say("recipe").lower()), kind="good"),
        }

    def replay(self, desk: Desk, data: bytes | None) -> Iterator[Answer]:
        """Do a recipe."""
        need_face(desk)
        desk.replay(given(data))
        yield from self.done(desk, "replay")
