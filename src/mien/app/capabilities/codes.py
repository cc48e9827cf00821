"""Faces as codes: found in pictures, invented, kept in files, rendered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mien.app.capabilities.networks import Networks, companion, in_precision
from mien.edits.walk import walk
from mien.errors import InputError, WeightsError
from mien.images import resize, save_png, to_pil
from mien.inversion.code import PERSON_SUFFIX, Inversion, load_inversion, picture_digest, save_inversion
from mien.inversion.invert import Method, find_method, invert
from mien.inversion.starts import Means
from mien.latents import sample_ws, synthesize
from mien.marks import Origin
from mien.nets.encoder import look
from mien.report import Sink, ignore

__all__ = ["Codes"]

PREVIEW_PX = 128


def preview(img: Tensor) -> Tensor:
    """Shrink img [1, 3, H, W] to at most 128 px, uint8 [3, h, w]."""
    small = to_pil(resize(img, min(PREVIEW_PX, img.shape[-1])))[0]
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


class Codes(Networks):
    """What a studio does between pictures and codes."""

    @in_precision
    def invert(
        self, img: Tensor, *, method: str = "optimize", num_steps: int | None = None, on_step: Sink = ignore
    ) -> list[Inversion]:
        """Find the codes of aligned faces.

        Args:
            img: [N, 3, H, W] in [-1, 1] of the generator's side.
            method: a name that `find_method` knows: `encoder` (one look), `optimize`, `pti`, `hybrid`, `nearest+w`...
            num_steps: most steps of the last refinement, by default its own.
            on_step: hears of every step.

        Raises:
            InputError: an unknown method.
            WeightsError: the encoder is asked for and the generator has none, or one of other weights.
        """
        found = invert(self.G, img.to(self.device), self._method(method, num_steps), self._means(), on_step=on_step)
        return [
            replace(inversion, network=self.digest, method=method, preview=preview(self.render(inversion)))
            for inversion in found
        ]

    def _means(self) -> Means:
        """What inversion may use."""
        return Means(
            stats=self.stats,
            encode=self.encode if companion(self.network, "encoder").is_file() else None,
            face_model=self.face_net,
            dtype=self.dtype,
            seed=self.seed,
        )

    def _method(self, name: str, num_steps: int | None) -> Method:
        method = find_method(name).with_seed(self.seed)
        return method if num_steps is None else method.with_steps(num_steps)

    def settings(self, method: str, num_steps: int | None = None) -> dict[str, Any]:
        """Return all settings of a method of inversion, as a code's `config` and recipes hold them."""
        return dict(json.loads(json.dumps(self._method(method, num_steps).record())))

    def save(self, inversion: Inversion, out: Path) -> None:
        """Write a code beside `out`, a PNG: its render as `out`, whatever changes the generator as `.mien`.

        A `.mien` of another code that lies there is removed, as the rest is replaced.
        The render is written last: where it is, the rest is whole.
        """
        if inversion.changes:
            save_inversion(inversion, out.with_suffix(PERSON_SUFFIX))
        else:
            out.with_suffix(PERSON_SUFFIX).unlink(missing_ok=True)
        save_inversion(inversion.code_alone(), out.with_suffix(".safetensors"))
        save_png(self.picture(inversion), out, Origin.INVENTED)

    def finished(self, out: Path, img: Tensor, *, method: str = "optimize", num_steps: int | None = None) -> bool:
        """Say whether `save` has written to `out` what `invert` would find of img [1, 3, H, W], so that work can go on.

        Anything else that lies there, another picture's code or one of other settings, is not it.
        """
        kept = next((p for s in (PERSON_SUFFIX, ".safetensors") if (p := out.with_suffix(s)).is_file()), None)
        if kept is None or not out.is_file():
            return False
        try:
            found = load_inversion(kept)
        except InputError:
            return False
        wanted = (self.digest, method, self.settings(method, num_steps))
        return (found.network, found.method, found.config) == wanted and found.picture == picture_digest(img)

    @in_precision
    def encode(self, img: Tensor) -> Tensor:
        """See ws [N, num_ws, w_dim] in img [N, 3, H, W], without optimising.

        Raises:
            WeightsError: the generator has no encoder.
        """
        if self.encoder is None:
            hint = "use --method optimize, or train one: mien train encoder"
            raise WeightsError(f"{self.network.stem} has no encoder", hint=hint)
        return look(self.encoder, self.G, img.to(self.device))

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Look at many pictures: ws [N, num_ws, w_dim] of uint8 [N, 3, H, W].

        Raises:
            WeightsError: the generator has no encoder.
        """
        return torch.cat([self.encode(some.float() / 127.5 - 1) for some in pixels.split(64)])

    @in_precision
    def seed_code(self, seed: int, *, psi: float = 0.7, class_idx: int | None = None) -> Inversion:
        """Invent a person: the code of a seed, of a class where the generator has classes."""
        ws = sample_ws(self.G, [seed], truncation_psi=psi, class_idx=class_idx)[0]
        return Inversion(ws=ws, network=self.digest, method="seed", config={"seed": seed, "psi": psi})

    def check(self, inversion: Inversion) -> None:
        """Refuse the code of another generator.

        Raises:
            InputError: it is one.
        """
        if inversion.network not in ("", self.digest):
            hint = "give the --network that it was made with, or invert the photo again"
            raise InputError(f"the code was made with another generator than {self.network.stem}", hint=hint)

    @in_precision
    def render(self, inversion: Inversion) -> Tensor:
        """Render a code as img [1, 3, H, W]."""
        self.check(inversion)
        return inversion.render(self.G)

    def picture(self, inversion: Inversion) -> Image:
        """Render a code as a picture of the network's size."""
        return to_pil(self.render(inversion))[0]

    @in_precision
    def generate(
        self,
        seeds: Sequence[int],
        *,
        psi: float = 0.7,
        noise_mode: str = "const",
        class_idx: int | None = None,
    ) -> list[Image]:
        """Invent people: a picture of the network's size for each seed.

        Args:
            seeds: one for each person.
            psi: truncation, 1 for all variety, 0 for the mean face.
            noise_mode: `const`, `random` (by the studio's seed and the person's) or `none`.
            class_idx: of a generator that has classes.
        """
        pictures = []
        for seed in seeds:
            ws = sample_ws(self.G, [seed], truncation_psi=psi, class_idx=class_idx)
            noise_seed = int(np.random.SeedSequence([self.seed, seed]).generate_state(1)[0])  # 32 bits: a CPU's all
            pictures += to_pil(synthesize(self.G, ws, noise_mode=noise_mode, seed=noise_seed, dtype=self.dtype))
        return pictures

    def walk(self, codes: Sequence[Inversion], num_frames: int) -> Iterator[Image]:
        """Render a smooth closed loop through people, picture by picture.

        Raises:
            InputError: nobody, or the code of another generator.
        """
        own_noise: Sequence[Tensor] = getattr(self.G.synthesis, "noise_maps", tuple)()
        return map(self.picture, walk(codes, num_frames, own_noise))
