"""The toolkit as one object: networks are loaded once, when first needed, and each capability is one method.

Photos go in and come out as PIL pictures, aligned faces as img [N, 3, H, W], codes as `Inversion`. What a studio does
with codes alone stands in `capabilities`; here is what it does with photos and clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from torch import Tensor

from mien.app.artists import find_artist
from mien.app.capabilities.changes import Changes
from mien.app.capabilities.networks import in_precision
from mien.edits.looks import Look, find_look
from mien.edits.spare import face_mask
from mien.edits.style_settings import StyleConfig
from mien.edits.stylize import Stylized, stylize
from mien.edits.swap import Swap
from mien.edits.toon_clip import toonify_clip
from mien.edits.toonify import Artist, ToonConfig, draw_whole, toonify
from mien.edits.video import ClipReport, VideoConfig, edit_clip
from mien.errors import InputError, NoFaceError
from mien.faces.align import Crop, align, paste_back, paste_change
from mien.faces.detect import Face, detect
from mien.images import resize, to_tensor
from mien.inversion.code import Inversion
from mien.report import Sink, ignore

__all__ = ["Studio"]


class Studio(Changes):
    """Everything that mien does with faces.

    Args:
        network: a generator's file or bundled name; its encoder and directions are looked for beside it.
        device: one of `DEVICES`.
        precision: of the generator while it is optimised through and while it invents people: fp32 is exact, bf16 an
            opt-in to speed.
        seed: of everything random.
        face_net: name or file of the face network for perceptual and identity terms; None compares pixels alone.
    """

    @in_precision
    def detect(self, photo: Image) -> list[Face]:
        """Find every face, largest first; empty where there is none."""
        return detect(self.detector, photo)

    def align(
        self, photo: Image, *, size_px: int | None = None, source: str = "", face: int | None = None
    ) -> list[Crop]:
        """Cut the faces out of `photo`, largest first, at `size_px` (by default the network's).

        Args:
            photo: RGB.
            size_px: side of the crops.
            source: the photo's name, for the record.
            face: only the face of this number.

        Raises:
            NoFaceError: no face, or none of that number.
        """
        faces = self.detect(photo)
        if not faces:
            raise NoFaceError(f"no face found in {source or 'the photo'}", hint="try a larger or more frontal photo")
        if face is not None:
            if not 0 <= face < len(faces):
                found = f"{source or 'the photo'} shows {len(faces)} face{'s' * (len(faces) > 1)}"
                raise NoFaceError(f"{found}, none has number {face}", hint="they are numbered from 0, largest first")
            faces = [faces[face]]
        return [align(photo, f, size_px or self.G.img_resolution, source=source) for f in faces]

    def aligned(self, image: Image, *, source: str = "") -> Tensor:
        """Turn a picture that is an FFHQ crop already into img [1, 3, H, W] of the generator's side.

        Raises:
            InputError: it is not square.
        """
        if image.width != image.height:
            size = f"{image.width}x{image.height} px"
            raise InputError(f"{source or 'the picture'} is {size}, no aligned crop", hint="leave out --aligned")
        return resize(to_tensor(image), self.G.img_resolution).clamp(-1, 1)

    def paste(self, photo: Image, crop: Crop, edited: Inversion, unedited: Inversion) -> Image:
        """Change the face in its photo as its render changed; what the generator could not show stays the photo's.

        Args:
            photo: that the crop was cut from; other faces of it may have been changed.
            crop: where the face is.
            edited: its code after the edit.
            unedited: its code before.
        """
        return self.paste_render(photo, crop, self.render(edited), unedited)

    def paste_render(self, photo: Image, crop: Crop, img: Tensor, unedited: Inversion) -> Image:
        """Change the face in its photo as img [1, 3, H, W] differs from the render of its code; see `paste`."""
        return paste_change(photo, crop, img - self.render(unedited))

    def paste_swap(self, photo: Image, crop: Crop, swapped: Swap) -> Image:
        """Put a swapped face into its photo; what lies outside of its mask stays as it is, byte for byte."""
        return paste_back(photo, crop, swapped.img, within=swapped.within)

    @in_precision
    def edit_clip(
        self,
        source: Path,
        out: Path,
        strengths: Mapping[str, float],
        *,
        config: VideoConfig | None = None,
        person: int | None = None,
        on_step: Sink = ignore,
    ) -> ClipReport:
        """Move the people of a clip along directions and write it as `out`; see `mien.edits.video.edit_clip`.

        Raises:
            InputError: an unknown direction, no clip, or nobody in it.
        """
        return edit_clip(
            source,
            out,
            G=self.G,
            means=self._means(),
            find=self.detect,
            edit=lambda code: self.edit(code, strengths),
            config=config,
            person=person,
            on_step=on_step,
        )

    def look(self, name: str = "auto", *, on_step: Sink = ignore) -> Look:
        """Return whose maps style transfer compares; see `find_look`."""
        return find_look(name, device=self.device, on_step=on_step)

    @in_precision
    def stylize(
        self, photo: Image, styles: Sequence[Image], look: Look, config: StyleConfig, **options: Any
    ) -> Stylized:
        """Paint a photo in the style of pictures; `config.spare` of its faces stays. `options` are of `stylize`."""
        tensors = [to_tensor(image).to(self.device) for image in (photo, *styles)]
        mask = face_mask(photo.size, self.detect(photo)).to(self.device) if config.spare else None
        return stylize(tensors[0], tensors[1:], look, config, spare_mask=mask, **options)

    def artist(self, style: str) -> Artist:
        """Return who draws in a style: a network's name or file; see `find_artist`."""
        return find_artist(self, style)

    def toonify(
        self,
        photo: Image,
        artist: Artist,
        config: ToonConfig | None = None,
        *,
        source: str = "",
        face: int | None = None,
    ) -> Image:
        """Draw the faces of a photo, all in one pass, and put them back; a whole picture may show none.

        Raises:
            NoFaceError: no face, or none of that number.
        """
        if config is not None and config.is_whole and face is None and not self.detect(photo):
            return draw_whole(artist, photo, config)
        return toonify(photo, self.align(photo, size_px=artist.size_px, source=source, face=face), artist, config)

    def toonify_clip(
        self, source: Path, out: Path, artist: Artist, config: ToonConfig | None = None, *, on_step: Sink = ignore
    ) -> int:
        """Draw the people of a clip and return how many pictures it has; see `mien.edits.toon_clip.toonify_clip`."""
        known: dict[str, Any] = dict(face_model=self.face_net, device=self.device, on_step=on_step)
        return toonify_clip(source, out, artist, config, find=self.detect, **known)
