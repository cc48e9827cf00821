"""Files of pSp, e4e, ReStyle and what descends from them: an encoder and rosinality's generator in one state dict.

`state_dict` holds `encoder.*` and `decoder.*`; beside it lie the average latent, one row or all, and the options of the
training, which alone say how the encoder's rows belong together.

Source: the names are those of github.com/eladrich/pixel2style2pixel, github.com/omertov/encoder4editing and
github.com/yuval-alaluf/restyle-encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from mien.nets.irse import STRIDE
from mien.weights.checkpoint import Checkpoint, Found, Recipe
from mien.weights.pickles import Record
from mien.weights.rosinality import is_generator, read_generator
from mien.weights.tables import count, listed, refuse, state_of

__all__ = ["matches", "read"]

ENCODER = "psp.PspEncoder"
STYLE = re.compile(r"styles\.\d+\.")
KIND_OF_TYPE = {
    "Encoder4Editing": "e4e",
    "ProgressiveBackboneEncoder": "e4e",
    "GradualStyleEncoder": "psp",
    "BackboneEncoder": "psp",
}
"""Class of an encoder in the options => how its rows belong together."""

NO_TYPE = "the file does not say which encoder it is: rows are taken as offsets from the first, as e4e has them"
NO_AVERAGE = "the file has no average latent to start from: codes are relative"
OTHERS = "known encoders have a residual backbone with a head per row (pSp, e4e, ReStyle for faces)"


def _options(opts: Any) -> Mapping[str, Any]:
    """Take options as a dict, whether they are one or an `argparse.Namespace`."""
    if isinstance(opts, Record):
        opts = opts.state
    return opts if isinstance(opts, Mapping) else {}


def _is_encoder(tree: Any) -> bool:
    """Tell whether a tree is the state dict of an encoder; a recogniser has the same backbone, but no styles."""
    return isinstance(tree, Mapping) and "input_layer.0.weight" in tree and any(STYLE.match(str(name)) for name in tree)


def _parts(state: Any) -> dict[str, dict[Any, Any]]:
    """Split a state dict at the first dot of its names."""
    parts: dict[str, dict[Any, Any]] = {}
    if isinstance(state, Mapping):
        for name, value in state.items():
            head, _, rest = str(name).removeprefix("module.").partition(".")
            parts.setdefault(head, {})[rest] = value
    return parts


def matches(tree: Any) -> bool:
    """Tell whether a tree is such a file, or the state dict of an encoder alone."""
    if not isinstance(tree, Mapping):
        return False
    parts = _parts(tree.get("state_dict"))
    return is_generator(parts.get("decoder")) or _is_encoder(parts.get("encoder")) or _is_encoder(tree)


# ---- The encoder ----------------------------------------------------------------------------------------------------


def _size(state: Mapping[str, Tensor], name: str, axis: int, ndim: int) -> int:
    if name not in state:
        refuse(f"encoder: tensors are missing: {name}", hint=OTHERS)
    if state[name].ndim != ndim:
        refuse(f"encoder: {name} has the wrong shape {list(state[name].shape)}")
    return state[name].shape[axis]


def _encoder_kwargs(state: Mapping[str, Tensor]) -> dict[str, Any]:
    num_units = count(state, r"body\.(\d+)\.")
    widths = [_size(state, f"body.{i}.res_layer.3.weight", 0, 4) for i in range(num_units)]
    stages = [(width, len(list(same))) for width, same in groupby(widths)]
    if len(stages) != 4:
        refuse(f"encoder: its backbone has {len(stages)} stages, not 4", hint=OTHERS)
    num_halvings = (count(state, r"styles\.0\.convs\.(\d+)\.") + 1) // 2  # every second layer is a convolution
    return dict(
        num_ws=count(state, r"styles\.(\d+)\."),
        w_dim=_size(state, "styles.0.linear.weight", 0, 2),
        use_pyramid="latlayer1.weight" in state,
        in_channels=_size(state, "input_layer.0.weight", 1, 4),
        in_resolution=STRIDE << min(num_halvings, 16),
        channels=[width for width, _ in stages],
        units=[num for _, num in stages],
        use_se="body.0.res_layer.5.fc1.weight" in state,
    )


def _averages(latent_avg: Any, num_ws: int, w_dim: int) -> Tensor:
    """Take an average latent of one row or all as [num_ws, w_dim]."""
    if not isinstance(latent_avg, Tensor) or latent_avg.shape[-1:] != (w_dim,) or latent_avg.ndim > 2:
        refuse(f"latent_avg does not go with rows of {w_dim}")
    rows = latent_avg.reshape(-1, w_dim)
    if len(rows) != 1 and len(rows) < num_ws:
        refuse(f"latent_avg has {len(rows)} rows, the encoder {num_ws}")
    return rows[:num_ws].expand(num_ws, w_dim).clone()


def _read_encoder(tree: Any, opts: Mapping[str, Any], latent_avg: Any) -> Found:
    state = state_of(tree, "encoder")
    if not _is_encoder(state):
        refuse(f"its encoder is of an unknown kind, with {listed(state)}", hint=OTHERS)
    kwargs, notes = _encoder_kwargs(state), []
    name = opts.get("encoder_type")
    if name is None:
        kwargs["kind"] = "e4e"
        notes.append(NO_TYPE)
    elif isinstance(name, str) and name in KIND_OF_TYPE:
        kwargs["kind"] = KIND_OF_TYPE[name]
    else:
        refuse(f"its encoder is a {name!r:.60}", hint=OTHERS)
    if latent_avg is None or opts.get("start_from_latent_avg") is False:
        average = torch.zeros(kwargs["num_ws"], kwargs["w_dim"])
        notes.append(NO_AVERAGE)
    else:
        average = _averages(latent_avg, kwargs["num_ws"], kwargs["w_dim"])
    return Found(Recipe(ENCODER, kwargs), {**state, "latent_avg": average}, tuple(notes))


# ---- The file -------------------------------------------------------------------------------------------------------


def read(tree: Any) -> Checkpoint:
    """Read a wrapped generator, encoder, or both, or the state dict of an encoder alone.

    Raises:
        WeightsError: names or shapes are not those of this family, or the encoder is of an unknown kind.
    """
    if _is_encoder(tree):
        return Checkpoint("encoder of pSp or e4e", {"E": _read_encoder(tree, {}, None)})
    parts, latent_avg = _parts(tree["state_dict"]), tree.get("latent_avg")
    networks: dict[str, Found] = {}
    if "decoder" in parts:
        networks["G_ema"] = read_generator(parts.pop("decoder"), latent_avg)
    if "encoder" in parts:
        networks["E"] = _read_encoder(parts.pop("encoder"), _options(tree.get("opts")), latent_avg)
    if parts:
        note = f"left out of the file: {listed(parts)}"
        networks = {role: replace(found, notes=(*found.notes, note)) for role, found in networks.items()}
    return Checkpoint("pSp, e4e or ReStyle", networks)
