"""NVIDIA's PyTorch pickles (stylegan2-ada-pytorch, stylegan3): generators and discriminators out of pickled modules.

The file is a dict of modules: `G`, `D` and `G_ema`, beside the augmentation and the data's description. A module comes
as its class's name and its attributes; arguments are read from them, what layers hold says more, and the tensors have
the last word.

Source: the layout is that of `training_loop.py` and `torch_utils/persistence.py` of github.com/NVlabs/stylegan3 and
github.com/NVlabs/stylegan2-ada-pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mien.errors import WeightsError
from mien.weights.checkpoint import Checkpoint, Found, Recipe
from mien.weights.nvidia_names import DISCRIMINATOR, GENERATOR, discriminator_kwargs, generator_kwargs
from mien.weights.tables import count, listed, refuse
from mien.weights.unpickle import PERSISTENT, Record

__all__ = ["matches", "read"]

ROLES = ("G_ema", "G", "D")
STYLEGAN3 = "stylegan3.Generator"
MAX_MODULES = 5000  # the largest network has about 200
VARIANT = "it is a variant that mien does not know, like stylegan2-ext or StyleGAN-XL"

SIZES = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
ORDER = {
    GENERATOR: (*SIZES, "mapping_kwargs", "synthesis_kwargs"),
    STYLEGAN3: (*SIZES, "mapping_kwargs"),
    DISCRIMINATOR: ("c_dim", "img_resolution", "img_channels", "architecture", "channel_base", "channel_max"),
}
"""How the constructors order their arguments, where a file has them by position."""

MAPPING = {"num_layers", "embed_features", "layer_features", "activation", "lr_multiplier", "w_avg_beta"}
CHANNELS = {"channel_base", "channel_max", "num_fp16_res", "conv_clamp"}
SYNTHESIS2 = CHANNELS | {"architecture", "resample_filter", "use_noise", "activation"}
SYNTHESIS3 = CHANNELS | {
    "conv_kernel",
    "filter_size",
    "first_cutoff",
    "first_stopband",
    "last_stopband_rel",
    "lrelu_upsampling",
    "magnitude_ema_beta",
    "margin_size",
    "num_critical",
    "num_layers",
    "output_scale",
    "use_radial_filters",
}
BLOCK = {"activation", "resample_filter"}
EPILOGUE = {"activation", "mbstd_group_size", "mbstd_num_channels"}
WITHOUT_EFFECT = {"fp16_channels_last", "freeze_layers", "fused_modconv", "fused_modconv_default", "use_fp16"}
"""Arguments that change how the official code computes, not what."""


# ---- Modules --------------------------------------------------------------------------------------------------------


def _is_module(tree: Any) -> bool:
    return isinstance(tree, Record) and tree.name == PERSISTENT


def _part(record: Record, name: str) -> Mapping[Any, Any]:
    held = record.state.get(name) if isinstance(record.state, Mapping) else None
    if not isinstance(held, Mapping):
        refuse(f"its {record.args[0]!a:.40} has no {name}")
    return held


def _tensors(record: Record) -> dict[str, Tensor]:
    """Return the state dict of a module: parameters and buffers of it and of all modules below, by path."""
    found: dict[str, Tensor] = {}
    waiting, num_modules = [("", record)], 0
    while waiting:
        prefix, module = waiting.pop()
        num_modules += 1
        if num_modules > MAX_MODULES or len(prefix) > 200:
            refuse(f"its modules are more than {MAX_MODULES}, or nested without end")
        for name, value in [*_part(module, "_parameters").items(), *_part(module, "_buffers").items()]:
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            elif value is not None:
                refuse(f"{prefix}{name} is no tensor")
        for name, below in _part(module, "_modules").items():
            if below is not None and not _is_module(below):
                refuse(f"{prefix}{name} is no module", hint=VARIANT)
            if below is not None:
                waiting.append((f"{prefix}{name}.", below))
    return found


def _attribute(record: Record, path: str, default: Any = None) -> Any:
    """Return an attribute of a module below, by its path; `default` where there is none."""
    *above, name = path.split(".")
    module: Any = record
    for step in above:
        module = _part(module, "_modules").get(step)
        if not _is_module(module):
            return default
    return module.state.get(name, default)


# ---- Arguments ------------------------------------------------------------------------------------------------------


def _arguments(record: Record, net: str) -> dict[str, Any]:
    """Return what the constructor was given, by name."""
    args, kwargs = record.state.get("_init_args", ()), record.state.get("_init_kwargs", {})
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping) or len(args) > len(ORDER[net]):
        refuse("its arguments are not readable")
    return {**dict(zip(ORDER[net], args, strict=False)), **kwargs}


def _known(kwargs: Any, known: set[str], what: str) -> dict[str, Any]:
    """Return the arguments that matter.

    Raises:
        WeightsError: there are others.
    """
    if not isinstance(kwargs, Mapping):
        refuse(f"{what} has arguments that are not readable")
    if unknown := {str(name) for name in kwargs} - known - WITHOUT_EFFECT:
        refuse(f"{what} has arguments that mien does not know: {listed(unknown)}", hint=VARIANT)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in kwargs.items() if name in known}


def _check_sizes(given: Mapping[str, Any], inferred: Mapping[str, Any]) -> None:
    for name in SIZES:
        if name in given and name in inferred and given[name] != inferred[name]:
            refuse(f"its arguments say {name} = {given[name]!r:.20}, its tensors {inferred[name]}")


def _mapping(record: Record, given: Any, inferred: Mapping[str, Any]) -> dict[str, Any]:
    kwargs = {**_known(given, MAPPING, "its mapping"), **inferred}
    rate = _attribute(record, "mapping.fc0.bias_gain")
    return kwargs | ({"lr_multiplier": rate} if isinstance(rate, float) and rate != 0.01 else {})


def _clamp(record: Record, layer: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Add the limit of feature maps that the layers hold: its default differs between versions of the official code."""
    limit = _attribute(record, f"{layer}.conv_clamp", kwargs.get("conv_clamp"))
    return kwargs | ({} if limit is None else {"conv_clamp": limit})


def _stylegan2_kwargs(record: Record, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    given, inferred = _arguments(record, GENERATOR), generator_kwargs(tensors)
    _check_sizes(given, inferred)
    flat = {name: value for name, value in given.items() if name not in ORDER[GENERATOR]}
    synthesis = _known({**given.get("synthesis_kwargs", {}), **flat}, SYNTHESIS2, "its synthesis")
    return {
        **{name: inferred[name] for name in SIZES},
        "mapping_kwargs": _mapping(record, given.get("mapping_kwargs", {}), inferred["mapping_kwargs"]),
        "synthesis_kwargs": _clamp(record, "synthesis.b4.conv1", {**inferred["synthesis_kwargs"], **synthesis}),
    }


def _stylegan3_kwargs(record: Record, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    given = _arguments(record, STYLEGAN3)
    if missing := set(SIZES) - given.keys():
        refuse(f"its arguments lack {listed(missing)}")
    flat = {name: value for name, value in given.items() if name not in ORDER[STYLEGAN3]}
    depth = {"num_layers": count(tensors, r"mapping\.fc(\d+)\.")}
    return {
        **{name: given[name] for name in SIZES},
        "mapping_kwargs": _mapping(record, given.get("mapping_kwargs", {}), depth),
        "synthesis_kwargs": _known(flat, SYNTHESIS3, "its synthesis"),
    }


def _discriminator_kwargs(record: Record, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    given, inferred = _arguments(record, DISCRIMINATOR), discriminator_kwargs(tensors)
    _check_sizes(given, inferred)
    parts = {"mapping_kwargs": MAPPING, "block_kwargs": BLOCK, "epilogue_kwargs": EPILOGUE}
    flat = {name: value for name, value in given.items() if name not in (*SIZES, *parts)}
    kwargs = {**inferred, **_known(flat, CHANNELS | {"architecture", "cmap_dim"}, "its discriminator")}
    for part, known in parts.items():
        kwargs[part] = {**_known(given.get(part, {}), known, f"its {part}"), **inferred.get(part, {})}
    if inferred["c_dim"]:
        kwargs["cmap_dim"] = inferred["cmap_dim"]
        kwargs["mapping_kwargs"] = _mapping(record, kwargs["mapping_kwargs"], {})
    group = _attribute(record, "b4.mbstd.group_size", kwargs["epilogue_kwargs"].get("mbstd_group_size", 4))
    kwargs["epilogue_kwargs"]["mbstd_group_size"] = group
    return _clamp(record, f"b{inferred['img_resolution']}.conv0", kwargs)


# ---- The format -----------------------------------------------------------------------------------------------------


def _found(record: Record, provenance: Mapping[str, Any]) -> Found:
    tensors = _tensors(record)
    if "synthesis.input.freqs" in tensors:
        net, kwargs = STYLEGAN3, _stylegan3_kwargs(record, tensors)
    elif "synthesis.b4.const" in tensors:
        net, kwargs = GENERATOR, _stylegan2_kwargs(record, tensors)
    elif "b4.out.weight" in tensors:
        net, kwargs = DISCRIMINATOR, _discriminator_kwargs(record, tensors)
    else:
        refuse(f"it holds a {record.args[0]!a:.40}, no network of StyleGAN 2 or 3", hint=VARIANT)
    return Found(Recipe(net, kwargs, provenance), tensors)


def _provenance(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the facts of the training data that are numbers or choices; paths are nobody's business."""
    facts = tree.get("training_set_kwargs")
    if not isinstance(facts, Mapping):
        return {}
    names = ("max_size", "resolution", "use_labels", "xflip")
    return {"training_set": {name: facts[name] for name in names if isinstance(facts.get(name), bool | int)}}


def matches(tree: Any) -> bool:
    """Tell whether a tree is a pickle of NVIDIA's modules: several by role, or one."""
    return _is_module(tree) or (isinstance(tree, Mapping) and any(_is_module(tree.get(role)) for role in ROLES))


def read(tree: Any) -> Checkpoint:
    """Read the modules of a pickle.

    A discriminator of an unknown kind is left out, with a note at the generators.

    Raises:
        WeightsError: modules are damaged, or of a variant that mien does not know.
    """
    if _is_module(tree):
        found = _found(tree, {})
        return Checkpoint("NVIDIA pickle", {"D" if found.recipe.net == DISCRIMINATOR else "G_ema": found})
    provenance = _provenance(tree)
    networks = {role: _found(tree[role], provenance) for role in ("G_ema", "G") if _is_module(tree.get(role))}
    try:
        if _is_module(tree.get("D")):
            networks["D"] = _found(tree["D"], provenance)
    except WeightsError as err:
        if not networks:
            raise
        note = f"its discriminator is left out: {err.message}"
        networks = {role: Found(found.recipe, found.tensors, (note,)) for role, found in networks.items()}
    return Checkpoint("NVIDIA pickle", networks)
