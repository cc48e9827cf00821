"""NVIDIA's TensorFlow pickles of StyleGAN, StyleGAN2 and StyleGAN2-ADA, read without TensorFlow.

A file holds three networks (G, D, Gs), Gs being the average over training. Each describes itself: the arguments it was
made with, its variables, its parts, and its source text, which is never looked at. Versions 2 and 3 are StyleGAN's, 4
StyleGAN2's, 5 StyleGAN2-ADA's.

Source: github.com/NVlabs/stylegan2/blob/master/dnnlib/tflib/network.py for what a network writes of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mien.nets.ops import ACTIVATIONS
from mien.weights.checkpoint import Checkpoint, Found
from mien.weights.tables import Change, listed, refuse
from mien.weights.tf_names import (
    Dialect,
    read_discriminator,
    read_stylegan1,
    read_stylegan2,
)
from mien.weights.unpickle import TENSORFLOW, Record

__all__ = ["DIALECT", "matches", "read"]

LINEAR = Change(lambda x: x.T, lambda x: x.T, 2)  # [in,out] to [out,in]
CONV = Change(lambda x: x.permute(3, 2, 0, 1), lambda x: x.permute(2, 3, 1, 0), 4)  # [kh,kw,in,out] to [out,in,kh,kw]
MIRRORED = Change(lambda x: x.permute(3, 2, 0, 1).flip(2, 3), lambda x: x.flip(2, 3).permute(2, 3, 1, 0), 4)

DIALECT = Dialect(name=lambda variable: variable, linear=LINEAR, conv=CONV, mirrored=MIRRORED)
"""Names and axes of these files."""

NORM_EPS = 1e-5  # as recorded pictures of such files have it; the first code adds 1e-8, a quarter of a grey level away
VERSIONS = (2, 3, 4, 5)
FORKS = "mien reads StyleGAN, StyleGAN2 and StyleGAN2-ADA as NVIDIA published them"

NO_FILTER = {"blur_filter": [1], "resample_kernel": [1, 1]}
"""Arguments that are taps of a filter, and those which None stands for."""

NUMBERS = {"conv_clamp", "mapping_lrmul", "mbstd_group_size", "num_fp16_res", "w_avg_beta"}
"""Arguments that are numbers."""

MAX_TAPS, MAX_NUMBER = 32, 1 << 20

IMPLIED = {
    *("resolution", "num_channels", "label_size", "latent_size", "dlatent_size", "dlatent_broadcast", "architecture"),
    *("fmap_base", "fmap_decay", "fmap_max", "fmap_min", "label_fmaps", "mapping_fmaps", "mapping_layers"),
    *("mbstd_num_features", "use_noise", "func_name", "G_func", "mapping_func", "synthesis_func", "components"),
}
"""Arguments that names and shapes tell."""

TRAINING = {
    *("dlatent_avg_beta", "dtype", "force_clean_graph", "freeze_layers", "fused_modconv", "is_template_graph"),
    *("is_training", "is_validation", "randomize_noise", "structure", "style_mixing_prob", "truncation_cutoff_val"),
    *("truncation_psi_val",),
}
"""Arguments that a finished network has no use for."""

PRESENTATION = {"truncation_psi", "truncation_cutoff"}
"""How its makers show pictures; kept as facts about the file."""


@dataclass(frozen=True)
class _Network:
    """A network as it describes itself: its variables, those of its parts among them, and its arguments."""

    role: str
    version: int
    kwargs: Mapping[str, Any]
    variables: Mapping[str, Tensor]
    is_multi_scale: bool

    def taken(self, names: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments that are given, theirs => ours by `names`."""
        return {ours: self.kwargs[theirs] for theirs, ours in names.items() if self.kwargs.get(theirs) is not None}

    def require(self, wanted: Mapping[str, Sequence[Any]]) -> None:
        """Refuse a network whose arguments ask for something that leaves no trace in its variables."""
        for name, values in wanted.items():
            if name in self.kwargs and self.kwargs[name] not in values:
                refuse(f"its {self.role} was made with {name}={self.kwargs[name]!r:.40}", hint=FORKS)


# ---- From records to variables --------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Numbers and short lists of numbers instead of tensors."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() <= MAX_TAPS else f"a tensor {list(value.shape)}"
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < MAX_NUMBER


def _checked(role: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments whose values can be believed, with the taps that no filter stands for.

    Raises:
        WeightsError: a value is not of its kind, or out of range.
    """
    kwargs = {name: NO_FILTER.get(name) if value is None else value for name, value in kwargs.items()}
    for name, value in kwargs.items():
        is_taps = isinstance(value, list) and 0 < len(value) <= MAX_TAPS and all(map(_is_number, value))
        is_fine = is_taps if name in NO_FILTER else _is_number(value) or name not in NUMBERS
        if value is not None and not is_fine:
            refuse(f"its {role} was made with {name}={value!r:.40}")
    return kwargs


def _table(role: str, state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of what a network writes that is names and values, where it is there."""
    table = state.get(name) or {}
    if not isinstance(table, Mapping):
        refuse(f"{role}: its {name} are a {type(table).__name__}")
    return table


def _collect(role: str, record: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return arguments and variables of a network and of its parts."""
    state = record.state if isinstance(record, Record) and record.name == TENSORFLOW else None
    if not isinstance(state, Mapping) or not isinstance(state.get("variables"), list | tuple):
        refuse(f"{role} has no variables")
    kwargs: dict[str, Any] = {}
    variables: dict[str, Tensor] = {}
    for part in _table(role, state, "components").values():
        more_kwargs, more = _collect(role, part)
        kwargs, variables = kwargs | more_kwargs, variables | more
    for pair in state["variables"]:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            refuse(f"{role}: a variable is not a name and a value")
        name, value = pair
        if not isinstance(value, Tensor | float | int):
            refuse(f"{role}: {name!r:.80} is a {type(value).__name__}, not a tensor")
        variables[name] = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)
    own = {str(name): _plain(value) for name, value in _table(role, state, "static_kwargs").items()}
    return kwargs | own, variables


def _network(role: str, record: Record) -> _Network:
    kwargs, variables = _collect(role, record)
    version = record.state.get("version")
    if not isinstance(version, int) or version not in VERSIONS:
        refuse(f"{role} is of version {version!r:.20}", hint=f"mien knows {', '.join(map(str, VERSIONS))}")
    is_multi_scale = version < 4 and ("num_inputs" in record.state or any("combine" in n.lower() for n in variables))
    return _Network(role, version, _checked(role, kwargs), variables, is_multi_scale)


def _records(tree: Any) -> dict[str, Record]:
    """Return the networks of a tree by role; a lone generator counts as the average one."""
    if isinstance(tree, Record) and tree.name == TENSORFLOW:
        name = str((tree.state or {}).get("build_func_name", "")) if isinstance(tree.state, Mapping) else ""
        return {"D" if name.startswith("D") else "G_ema": tree}
    if isinstance(tree, Mapping):
        tree = [tree.get(key) for key in ("G", "D", "Gs")]
    if not isinstance(tree, list | tuple) or len(tree) != 3:
        return {}
    roles = dict(zip(("G", "D", "G_ema"), tree, strict=True))
    return {role: roles[role] for role in ("G_ema", "G", "D") if getattr(roles[role], "name", None) == TENSORFLOW}


# ---- From variables to networks -------------------------------------------------------------------------------------


def _notes(network: _Network, known: set[str]) -> tuple[str, ...]:
    if unknown := network.kwargs.keys() - known - IMPLIED - TRAINING - PRESENTATION:
        return (f"arguments that NVIDIA's networks do not have were left out: {listed(unknown)}",)
    return ()


def _shown(network: _Network) -> dict[str, Any]:
    return {name: network.kwargs[name] for name in sorted(PRESENTATION) if _is_number(network.kwargs.get(name))}


MAPPING = {"mapping_lrmul": "lr_multiplier", "w_avg_beta": "w_avg_beta"}
MAPPING2 = MAPPING | {"mapping_nonlinearity": "activation"}
SYNTHESIS2 = {
    "conv_clamp": "conv_clamp",
    "nonlinearity": "activation",
    "num_fp16_res": "num_fp16_res",
    "resample_kernel": "resample_filter",
}
FIXED = {
    "mapping_nonlinearity": tuple(ACTIVATIONS),
    "nonlinearity": tuple(ACTIVATIONS),
    "normalize_latents": (True, 1),
}
FIXED1 = FIXED | {
    "const_input_layer": (True, 1),
    "mapping_nonlinearity": ("lrelu",),
    "nonlinearity": ("lrelu",),
    "use_instance_norm": (True, 1),
    "use_noise": (True, 1),
    "use_pixel_norm": (False, 0),
    "use_styles": (True, 1),
    "use_wscale": (True, 1),
}
FUSED_FROM = {"auto": 128, True: 4, False: 1 << 20}


def _stylegan1(network: _Network) -> Found:
    network.require(FIXED1)
    synthesis: dict[str, Any] = {"norm_eps": NORM_EPS}
    if "fused_scale" in network.kwargs:
        network.require({"fused_scale": tuple(FUSED_FROM)})
        synthesis["fused_from"] = FUSED_FROM[network.kwargs["fused_scale"]]
    if "blur_filter" in network.kwargs:
        synthesis["blur_filter"] = network.kwargs["blur_filter"]
    found = read_stylegan1(
        DIALECT,
        network.variables,
        mapping_kwargs=network.taken(MAPPING),
        synthesis_kwargs=synthesis,
        provenance=_shown(network),
    )
    known = {*FIXED1, *MAPPING, "fused_scale", "blur_filter"}
    return Found(found.recipe, found.tensors, (*found.notes, *_notes(network, known)))


def _stylegan2(network: _Network) -> Found:
    network.require(FIXED)
    found = read_stylegan2(
        DIALECT,
        network.variables,
        mapping_kwargs=network.taken(MAPPING2),
        synthesis_kwargs=network.taken(SYNTHESIS2),
        provenance=_shown(network),
    )
    return Found(found.recipe, found.tensors, (*found.notes, *_notes(network, {*FIXED, *MAPPING2, *SYNTHESIS2})))


LABELS = {"mapping_lrmul": "lr_multiplier", "nonlinearity": "activation"}
BLOCKS = {"nonlinearity": "activation", "resample_kernel": "resample_filter"}
GROUP_SIZE = {4: 4, 5: None}  # by version, where the arguments do not say


def _discriminator(network: _Network) -> Found:
    network.require(FIXED)
    group_size = network.kwargs.get("mbstd_group_size", GROUP_SIZE[network.version])
    found = read_discriminator(
        DIALECT,
        network.variables,
        epilogue_kwargs=network.taken({"nonlinearity": "activation"}) | {"mbstd_group_size": group_size},
        block_kwargs=network.taken(BLOCKS),
        mapping_kwargs={"lr_multiplier": 0.1} | network.taken(LABELS),
        conv_clamp=network.kwargs.get("conv_clamp"),
        num_fp16_res=network.kwargs.get("num_fp16_res") or 0,
    )
    known = {*LABELS, *BLOCKS, "conv_clamp", "mapping_nonlinearity", "mbstd_group_size", "num_fp16_res"}
    return Found(found.recipe, found.tensors, (*found.notes, *_notes(network, known)))


def matches(tree: Any) -> bool:
    """Tell whether a tree is such a file, or one of its networks."""
    return bool(_records(tree))


def _generator(network: _Network) -> Found:
    names = network.variables.keys()
    if any(name.endswith("/StyleMod/weight") for name in names):
        return _stylegan1(network)
    if not any(name.endswith("/mod_weight") for name in names):
        refuse("its generator takes no styles: a progressive GAN, or another network of that time", hint=FORKS)
    return _stylegan2(network)


def read(tree: Any) -> Checkpoint:
    """Read a file of these, or one network of it.

    Raises:
        WeightsError: a variable is missing, or it is a fork that computes something else.
    """
    networks = {role: _network(role, record) for role, record in _records(tree).items()}
    if any(network.is_multi_scale for network in networks.values()):
        refuse("it is MSG-StyleGAN, whose generator and discriminator are joined at every size", hint=FORKS)
    found = {role: _generator(network) for role, network in networks.items() if role != "D"}
    D = networks.get("D")
    if D is not None and D.version >= 4:
        found["D"] = _discriminator(D)
    elif not found:
        refuse("it holds StyleGAN's discriminator alone, which mien does not build", hint="give the file with Gs")
    return Checkpoint("TensorFlow pickle", found)
