"""What one visitor of the page works on: a photo, codes of its faces, and every state that can be returned to.

Changes of faces (sliders, styles, blends) are operations on codes that are drawn from the photo anew, so that nothing
adds up and a recipe can be written. What the queue makes (a swap, a painting) is a photo of its own, on which the work
goes on.
"""

from __future__ import annotations

import io
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from PIL.Image import Image

from mien.app.operations import OPERATIONS, Change, Edit, Mix, Style, draw, person_of
from mien.app.recipes import recipe_of
from mien.app.subjects import Scene, Subjects
from mien.app.trust.gate import BlockList, admit, seal, spare
from mien.edits.recipe import Person, parse_recipe, recipe_text
from mien.errors import InputError
from mien.images import to_pil
from mien.inversion.code import Inversion
from mien.inversion.invert import find_edit
from mien.marks import Origin
from mien.report import Step

if TYPE_CHECKING:
    from mien.app.settings import Settings
    from mien.app.studio import Studio

__all__ = ["METHOD", "MOST_OTHERS", "Desk", "Errand", "Moment"]

METHOD = "encoder"
STYLE_PRESET = "lab-style"
SHOWN_PX, THUMB_PX, INVENTED_PX, MOST_MOMENTS = 1280, 192, 384, 40
MOST_OTHERS, MOST_CODES = 3, 8


class _Quiet:
    """Hears of steps that are too short to be told."""

    def __call__(self, step: Step) -> None: ...

    def say(self, prefix: str) -> None: ...


@dataclass(frozen=True, eq=False)
class Moment:
    """A state of the work.

    Attributes:
        scene: the photo that faces are drawn into, and their codes.
        changes: number of a face => operations on it.
        what: key of the text that names the last step.
        photo: what it looks like.
        face: that the last step was done to.
    """

    scene: Scene
    changes: Mapping[int, tuple[Change, ...]]
    what: str
    photo: Image
    face: int = 0


@dataclass(frozen=True, eq=False)
class Errand:
    """A job that runs for a desk, and the key of the text that names it."""

    job_id: str
    what: str


def _small(image: Image, px: int) -> Image:
    small = image.copy()
    small.thumbnail((px, px), PIL.Image.Resampling.LANCZOS)
    return small


@dataclass(eq=False)
class Desk:
    """One visitor's work.

    Args:
        studio: networks.
        settings: bounds on what comes in, marks on what goes out.
        folder: of the visitor's files.
        user: as the queue names them.
        computing: is held by who uses the studio.
        blocked: whom and what the operator refuses.
    """

    studio: Studio
    settings: Settings
    folder: Path
    user: str
    computing: threading.Lock
    blocked: BlockList
    moments: list[Moment] = field(default_factory=list)
    face: int = 0
    errand: Errand | None = None
    made: tuple[str, Path] | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    used_s: float = field(default_factory=time.monotonic)
    _watcher: int = 0
    _codes: dict[str, Inversion] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # ---- In ---------------------------------------------------------------------------------------------------------

    def picture(self, data: bytes) -> Image:
        """Let a picture in; see `trust.admit`."""
        return admit([data], user=self.user, settings=self.settings.trust, blocked=self.blocked)[0]

    def open(self, data: bytes) -> str:
        """Begin with a photo and return what its user should know of it.

        Raises:
            InputError: refused, or no face.
        """
        photo = self.picture(data)
        with self.computing:
            scene, told = self._look(photo)
        self.moments, self.face, self.points = [Moment(scene, {}, "open", photo)], 0, []
        return told

    def invent(self) -> bytes:
        """Return a PNG of somebody who does not exist."""
        with self.computing:
            (image,) = self.studio.generate([secrets.randbelow(10_000)], psi=0.6)
        wide = image.resize((INVENTED_PX, INVENTED_PX), PIL.Image.Resampling.LANCZOS)
        return seal(wide, Origin.INVENTED, self.settings.marks)

    def _look(self, photo: Image) -> tuple[Scene, str]:
        crops, told = spare(self.studio.align(photo), self.settings.trust)
        return Subjects(self.studio, _Quiet(), method=METHOD).scene_of(photo, crops), told

    def code(self, data: bytes) -> Inversion:
        """Look at the largest face of another picture."""
        key = sha256(data).hexdigest()
        if key not in self._codes:
            picture = self.picture(data)
            with self.computing:
                img = self.studio.align(picture, face=0)[0].img
                self._codes[key] = self.studio.invert(img, method=METHOD)[0]
        while len(self._codes) > MOST_CODES:
            del self._codes[next(iter(self._codes))]
        return self._codes[key]

    def expression(self, data: bytes) -> dict[str, float]:
        """Read the expression of the largest face of another picture: blendshape => 0..1."""
        from mien.nets.features import FRAME_PX

        picture = self.picture(data)
        with self.computing:
            return self.studio.expression(self.studio.align(picture, size_px=FRAME_PX, face=0)[0].img)

    # ---- Jobs -------------------------------------------------------------------------------------------------------

    def new_watcher(self) -> int:
        """Return the number of somebody who watches the job from now on; all before are relieved."""
        with self._lock:
            self._watcher += 1
            return self._watcher

    def is_watched_by(self, watcher: int) -> bool:
        """Say whether nobody came after this one."""
        return self._watcher == watcher

    def finish(self, errand: Errand) -> bool:
        """Say whether the caller is the one who brings what a job made."""
        with self._lock:
            if self.errand is not errand:
                return False
            self.errand = None
            return True

    def clear(self) -> None:
        """Put the photo and what runs away."""
        self.new_watcher()
        self.errand = self.made = None
        self.moments, self.points, self.face = [], [], 0

    def keep(self, data: bytes, what: str, suffix: str) -> None:
        """Keep what was made beside the photo."""
        self.made = what, self._write(data, f"mien-{what}-{secrets.token_hex(4)}{suffix}")

    # ---- Where it stands --------------------------------------------------------------------------------------------

    @property
    def now(self) -> Moment:
        """The present state.

        Raises:
            InputError: there is no photo.
        """
        if not self.moments:
            raise InputError("there is no photo yet", hint="put one in on the left")
        return self.moments[-1]

    @property
    def strengths(self) -> Mapping[str, float]:
        """Where the sliders of the chosen face stand."""
        edits = (change for change in self.now.changes.get(self.face, ()) if isinstance(change, Edit))
        return next((edit.strengths for edit in edits), {})

    def pick(self, face: int) -> None:
        """Choose a face."""
        if not 0 <= face < len(self.now.scene.faces):
            raise InputError(f"the photo has no face {face}", hint="choose one of those shown")
        self.face, self.points = face, []

    def crop(self, face: int) -> Image:
        """The picture of a face."""
        crop = self.now.scene.faces[face][0]
        assert crop is not None
        return crop.image

    # ---- Changes that are drawn at once -----------------------------------------------------------------------------

    def _with(self, change: Change) -> tuple[Change, ...]:
        """The operations on the chosen face, with this one in place of the one of its kind; sliders come first."""
        others = [one for one in self.now.changes.get(self.face, ()) if type(one) is not type(change)]
        return (change, *others) if isinstance(change, Edit) else (*others, change)

    def _edit(self, strengths: Mapping[str, float]) -> Edit:
        return Edit(strengths={name: float(strength) for name, strength in strengths.items() if strength})

    def live(self, strengths: Mapping[str, float]) -> tuple[Image, Image]:
        """Draw the chosen face before and after sliders, as the network sees it."""
        _, code = self.now.scene.faces[self.face]
        with self.computing:
            after = draw(self.studio, code, self._with(self._edit(strengths)))
            return self.studio.picture(code), to_pil(after)[0]

    def edit(self, strengths: Mapping[str, float]) -> None:
        """Move the chosen face along directions, in standard deviations each, from the photo's own face."""
        is_same = self.now.what == "adjust" and self.now.face == self.face and len(self.moments) > 1
        self._change(self._edit(strengths), "adjust", replaces=is_same)

    def style(self, code: Inversion, *, amount: float, keep_colour: bool) -> None:
        """Take light and colour of somebody else for the chosen face; `amount` 0..1 of them."""
        rows = tuple(find_edit(STYLE_PRESET).rows(self.studio.G.num_ws))
        person = person_of(self.studio, code)
        self._change(Style(person=person, rows=rows, psi=1 - amount, keep_colour=keep_colour), "style")

    def blend(self, codes: Sequence[Inversion], weights: Sequence[float]) -> None:
        """Make the chosen face a mean of itself and others; the first weight is its own.

        Raises:
            InputError: nobody has a weight.
        """
        own = self.now.scene.faces[self.face][1]
        people, shares = [own, *codes], np.asarray(weights, float)
        if len(shares) != len(people) or (shares < 0).any() or shares.sum() <= 0:
            raise InputError("nobody has a weight", hint="move one of the weights up")
        ws = sum(float(share) * one.ws for share, one in zip(shares / shares.sum(), people, strict=True))
        layers = tuple(range(self.studio.G.num_ws))
        self._change(Mix(person=Person(ws=ws), layers=layers), "blend")  # type: ignore[arg-type]

    def _change(self, change: Change, what: str, *, replaces: bool = False) -> None:
        now = self.now
        changes = {**now.changes, self.face: self._with(change)}
        with self.computing:
            photo = now.scene.photo
            assert photo is not None
            for i, (crop, code) in enumerate(now.scene.faces):
                if changes.get(i):
                    assert crop is not None
                    photo = self.studio.paste_render(photo, crop, draw(self.studio, code, changes[i]), code)
        if replaces:
            self.moments.pop()
        self._add(Moment(now.scene, changes, what, photo, self.face))

    def _add(self, moment: Moment) -> None:
        self.moments.append(moment)
        if len(self.moments) > MOST_MOMENTS:
            del self.moments[1]

    def take(self, data: bytes, what: str) -> None:
        """Go on with what the queue made; a painting may show no face."""
        photo = PIL.Image.open(io.BytesIO(data)).convert("RGB")
        with self.computing:
            scene, _ = self._look(photo) if self.studio.detect(photo) else (Scene(photo, []), "")
        self._add(Moment(scene, {}, what, photo, self.face))
        self.face, self.points = min(self.face, max(len(scene.faces) - 1, 0)), []

    def undo(self) -> bool:
        """Go one step back; say whether there was one."""
        if len(self.moments) < 2:
            return False
        self.moments.pop()
        return True

    def go_back(self, number: int) -> None:
        """Go back to a state of the history."""
        if 0 <= number < len(self.moments):
            del self.moments[number + 1 :]

    # ---- Recipes ----------------------------------------------------------------------------------------------------

    def recipe(self) -> str:
        """Write down what was done to the chosen face since the photo, or the last result of the queue, as JSON."""
        changes = self.now.changes.get(self.face, ())
        if not changes:
            raise InputError("nothing was done to this face yet", hint="move a slider first")
        subjects = Subjects(self.studio, _Quiet(), method=METHOD)
        with self.computing:
            return recipe_text(recipe_of(subjects, changes, face=self.face), OPERATIONS)

    def write_recipe(self) -> Path:
        """Write the recipe as it is downloaded."""
        return self._write(self.recipe().encode(), "mien-recipe.json")

    def replay(self, data: bytes) -> None:
        """Do a recipe to the chosen face.

        Raises:
            InputError: it is none, of another network, or of operations that are no changes of a face.
        """
        recipe = parse_recipe(data.decode(errors="replace"), OPERATIONS)
        if recipe.digest != self.studio.digest:
            raise InputError("the recipe was made with another network", hint=f"it asks for {recipe.network}")
        for operation in recipe.operations:
            if not isinstance(operation, Change):
                raise InputError("this recipe is no change of one face", hint="use mien replay")
        for operation in recipe.operations:
            assert isinstance(operation, Change)
            self._change(operation, "replay")

    # ---- Out --------------------------------------------------------------------------------------------------------

    def _write(self, data: bytes, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_bytes(data)
        return path

    def shown(self) -> tuple[Path, Path]:
        """Write the photo before and after, small enough for a screen, and return the files."""
        now, first = self.now, self.moments[0]
        pair = [first.photo, now.photo]
        if pair[0].size != pair[1].size:
            pair[0] = pair[0].resize(pair[1].size, PIL.Image.Resampling.LANCZOS)
        paths = []
        for image in pair:
            data = seal(_small(image, SHOWN_PX), Origin.CHANGED, self.settings.marks, kind="jpeg")
            paths.append(self._write(data, f"{secrets.token_hex(8)}.jpg"))
        return paths[0], paths[1]

    def result(self) -> Path:
        """Write the present photo as it is downloaded."""
        data = seal(self.now.photo, Origin.CHANGED, self.settings.marks)
        return self._write(data, f"mien-{secrets.token_hex(4)}.png")

    def thumbs(self) -> list[Path]:
        """Write the history's pictures."""
        return [
            self._write(
                seal(_small(moment.photo, THUMB_PX), Origin.CHANGED, self.settings.marks, kind="jpeg"),
                f"{id(moment):x}.jpg",
            )
            for moment in self.moments
        ]

    def upload(self) -> bytes:
        """Return the present photo as the queue takes it: PNG, or JPEG where that would be too large."""
        for kind, options in (("PNG", {"compress_level": 3}), ("JPEG", {"quality": 97, "subsampling": 0})):
            file = io.BytesIO()
            self.now.photo.save(file, kind, **options)
            if file.tell() <= self.settings.trust.max_bytes:
                break
        return file.getvalue()

    def change_request(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        """Return the queue's request for one operation on the chosen face."""
        return {"op": "change", "operations": [dict(operation)], "method": METHOD, "face": self.face}
