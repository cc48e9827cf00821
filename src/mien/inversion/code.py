"""A face as a code: what an inversion returns, with everything that is needed to render it again.

The file of a person, `.mien`, opens anywhere beside the generator alone: it holds the code, the noise, what was changed
of the weights and features, where the face was cut out, a small preview, and a record of how all this was found. A
`.safetensors` of a code is the same with less in it.

Source: the format is github.com/huggingface/safetensors; the header's entry `mien_code` is JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mien.atomic import replacing
from mien.errors import InputError, UnsupportedFileError
from mien.inversion.personal import Changes, FeatureOffset, personal
from mien.nets.generator import Generator

__all__ = ["CODE_SUFFIXES", "PERSON_SUFFIX", "Inversion", "load_inversion", "picture_digest", "save_inversion"]

PERSON_SUFFIX = ".mien"
CODE_SUFFIXES = (".safetensors", PERSON_SUFFIX)
HEADER = "mien_code"
FORMATS = (1, 2, 3)  # the second has changes of the generator, the third also of styles
MAX_BYTES = 64 << 20
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
FACTS = ("network", "method", "config", "losses", "crop", "picture", "versions")


def picture_digest(img: Tensor) -> str:
    """Return the sha256 of a picture [1, 3, H, W] or [3, H, W], by which a code knows what it was made of."""
    return hashlib.sha256(img.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Inversion:
    """One face's code.

    Attributes:
        ws: [num_ws, w_dim].
        noise: the layers' noise maps [h, w] in order, or nothing for the network's own.
        changes: of the generator, this person's own.
        network: sha256 of the generator's file; empty when it is not known.
        method: how the code was found.
        config: settings of the method.
        losses: terms at the end, unweighted.
        crop: where the picture came from (source, quad, matrix); empty for an aligned picture.
        picture: `picture_digest` of what the code should show; empty when it shows nobody in particular.
        versions: name of a library => its version when the code was found.
        preview: uint8 [3, h, w], the render made small; for whoever looks through a folder.
    """

    ws: Tensor
    noise: tuple[Tensor, ...] = ()
    changes: Changes = field(default_factory=Changes)
    network: str = ""
    method: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    crop: Mapping[str, Any] = field(default_factory=dict)
    picture: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    preview: Tensor | None = None

    def with_ws(self, ws: Tensor) -> Inversion:
        """Return the same face (noise, origin) with another code [num_ws, w_dim]: an edit."""
        return replace(self, ws=ws)

    def from_crop(self, record: Mapping[str, Any]) -> Inversion:
        """Return the same code with where its picture was cut out, a `Crop.record`."""
        return replace(self, crop=dict(record))

    def code_alone(self) -> Inversion:
        """Return the code and the noise without the changes of the generator."""
        return replace(self, changes=Changes(), preview=None)

    def render(self, G: Generator, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Render as img [1, 3, H, W].

        Raises:
            InputError: the code was made for another generator.
        """
        hint = "give the --network that the code was made with"
        if self.ws.shape != (G.num_ws, G.w_dim):
            raise InputError(f"the code is {list(self.ws.shape)}, not [{G.num_ws}, {G.w_dim}]", hint=hint)
        shapes = [tuple(n.shape) for n in self.noise]
        wanted = [tuple(shape) for shape in getattr(G.synthesis, "noise_shapes", list)()]
        if shapes and shapes != wanted:
            raise InputError("the code's noise maps do not have the sizes of this generator's", hint=hint)
        device = G.w_avg.device
        given: dict[str, Any] = {} if dtype == torch.float32 else {"dtype": dtype}
        if self.noise:
            given["noise"] = [n[None, None].to(device).float() for n in self.noise]
        own = personal(G, self.changes) if self.changes else G
        with torch.no_grad():
            return own.synthesis(self.ws[None].to(device), noise_mode="const", **given)


def _tensors(inversion: Inversion) -> dict[str, Tensor]:
    tensors = {"ws": inversion.ws} | {f"noise{i}": n for i, n in enumerate(inversion.noise)}
    for name, (up, down) in inversion.changes.factors.items():
        tensors |= {f"up:{name}": up, f"down:{name}": down}
    if (feature := inversion.changes.feature) is not None:
        tensors |= {f"feature:{feature.layer}": feature.steps, f"unit:{feature.layer}": feature.unit}
    tensors |= {f"style:{name}": styles for name, styles in inversion.changes.styles.items()}
    if inversion.preview is not None:
        tensors["preview"] = inversion.preview
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _changes(tensors: Mapping[str, Tensor]) -> Changes:
    names = [name.removeprefix("up:") for name in tensors if name.startswith("up:")]
    factors = {name: (tensors[f"up:{name}"], tensors[f"down:{name}"]) for name in names}
    if any(up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0] for up, down in factors.values()):
        raise ValueError("factors that do not meet")
    features = [
        FeatureOffset(layer, steps, tensors[f"unit:{layer}"])
        for kind, _, layer, steps in ((*name.partition(":"), t) for name, t in tensors.items())
        if kind == "feature"
    ]
    if any(f.steps.ndim != 3 or f.unit.shape != (len(f.steps), 1, 1) for f in features):
        raise ValueError("a feature map without its unit")
    styles = {name.removeprefix("style:"): t for name, t in tensors.items() if name.startswith("style:")}
    if any(offset.ndim != 1 for offset in styles.values()):
        raise ValueError("styles that are no vector")
    return Changes(factors, features[0] if features else None, styles)


def save_inversion(inversion: Inversion, path: Path) -> None:
    """Write a code as safetensors, whole or not at all; what is read again renders exactly the same."""
    facts = {"format": FORMATS[-1]} | {name: getattr(inversion, name) for name in FACTS}
    data = save(_tensors(inversion), metadata={HEADER: json.dumps(facts)})
    with replacing(path) as part:
        part.write_bytes(data)


def load_inversion(path: Path) -> Inversion:
    """Read what `save_inversion` wrote.

    Raises:
        UnsupportedFileError: not there, damaged, or not a code.
    """
    hint = f"give a {' or '.join(CODE_SUFFIXES)} that `mien invert` wrote"
    if not path.is_file():
        raise UnsupportedFileError(f"no code at {path}", hint=hint)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnsupportedFileError(f"{path} is too large for a code", hint=hint)
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts.pop("format") not in FORMATS:
            raise UnsupportedFileError(f"{path} has another format", hint="a newer mien may read it")
        noise = tuple(tensors[f"noise{i}"] for i in range(sum(name.startswith("noise") for name in tensors)))
        inversion = Inversion(tensors["ws"], noise, _changes(tensors), preview=tensors.get("preview"), **facts)
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as err:
        raise UnsupportedFileError(f"{path} is damaged or not a code", hint=hint) from err
    finite = all(bool(t.isfinite().all()) for t in tensors.values())
    if not finite or any(t.ndim != 2 or t.dtype not in DTYPES for t in (inversion.ws, *noise)):
        raise UnsupportedFileError(f"{path} holds no code that can be rendered", hint=hint)
    return inversion
