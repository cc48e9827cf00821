"""A face as a code: what an inversion returns, with everything that is needed to render it again.

Source: the format is github.com/huggingface/safetensors; the header's entry `mien_code` is JSON.
"""

from __future__ import annotations

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
from mien.nets.generator import Generator

__all__ = ["Inversion", "load_inversion", "save_inversion"]

HEADER = "mien_code"
FORMAT = 1
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Inversion:
    """One face's code.

    Attributes:
        ws: [num_ws, w_dim].
        noise: the layers' noise maps [h, w] in order, or nothing for the network's own.
        network: sha256 of the generator's file; empty when it is not known.
        method: how the code was found.
        config: settings of the method.
        losses: terms at the end, unweighted.
        crop: where the picture came from (source, quad, matrix); empty for an aligned picture.
    """

    ws: Tensor
    noise: tuple[Tensor, ...] = ()
    network: str = ""
    method: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    crop: Mapping[str, Any] = field(default_factory=dict)

    def with_ws(self, ws: Tensor) -> Inversion:
        """Return the same face (noise, origin) with another code [num_ws, w_dim]: an edit."""
        return replace(self, ws=ws)

    def from_crop(self, record: Mapping[str, Any]) -> Inversion:
        """Return the same code with where its picture was cut out, a `Crop.record`."""
        return replace(self, crop=dict(record))

    def render(self, G: Generator, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Render as img [1, 3, H, W].

        Raises:
            InputError: the code was made for another generator.
        """
        if self.ws.shape != (G.num_ws, G.w_dim):
            hint = "give the --network that the code was made with"
            raise InputError(f"the code is {list(self.ws.shape)}, not [{G.num_ws}, {G.w_dim}]", hint=hint)
        device = G.w_avg.device
        given: dict[str, Any] = {"noise": [n[None, None].to(device) for n in self.noise]} if self.noise else {}
        if dtype != torch.float32:
            given["dtype"] = dtype
        with torch.no_grad():
            return G.synthesis(self.ws[None].to(device), noise_mode="const", **given)


def save_inversion(inversion: Inversion, path: Path) -> None:
    """Write a code as safetensors, whole or not at all."""
    facts = {"format": FORMAT} | {
        name: getattr(inversion, name) for name in ("network", "method", "config", "losses", "crop")
    }
    tensors = {"ws": inversion.ws} | {f"noise{i}": n for i, n in enumerate(inversion.noise)}
    data = save(
        {k: t.detach().float().cpu().contiguous() for k, t in tensors.items()}, metadata={HEADER: json.dumps(facts)}
    )
    with replacing(path) as part:
        part.write_bytes(data)


def load_inversion(path: Path) -> Inversion:
    """Read what `save_inversion` wrote.

    Raises:
        UnsupportedFileError: not there, damaged, or not a code.
    """
    hint = "give a .safetensors that `mien invert` wrote"
    if not path.is_file():
        raise UnsupportedFileError(f"no code at {path}", hint=hint)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnsupportedFileError(f"{path} is too large for a code", hint=hint)
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts.pop("format") != FORMAT:
            raise UnsupportedFileError(f"{path} has another format", hint="a newer mien may read it")
        noise = tuple(tensors[f"noise{i}"] for i in range(len(tensors) - 1))
        inversion = Inversion(tensors["ws"], noise, **facts)
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as err:
        raise UnsupportedFileError(f"{path} is damaged or not a code", hint=hint) from err
    finite = all(bool(t.isfinite().all()) for t in tensors.values())
    if not finite or inversion.ws.ndim != 2 or any(n.ndim != 2 for n in noise):
        raise UnsupportedFileError(f"{path} holds no code that can be rendered", hint=hint)
    return inversion
