"""What one person adds to a generator: small changes of its weights, offsets of a feature map and of styles.

A change of a convolution's weight is a product of two thin matrices, so that a person's file stays small at every
resolution and holds exactly what was optimised. Both parts leave the latent space as it is: an edited code goes through
the same changed network, and the offset is added to whatever the edited code makes of the feature map, which equals
F + (F(edited) - F(unedited)).

Source: pivotal tuning: Roich et al. 2021, arXiv:2106.05744; thin factors: Hu et al. 2021, Sec. 4.1, arXiv:2106.09685;
features under edits: Yao et al. 2022, Sec. 3.4, arXiv:2202.02183; styles: Wu et al. 2021, Sec. 3, arXiv:2011.12799.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from mien.errors import InputError
from mien.nets.generator import Generator

__all__ = ["Changes", "FeatureOffset", "feature_layers", "personal", "quantised", "tunable"]

HINT = "give the --network that it was made with"


@dataclass(frozen=True, eq=False)
class FeatureOffset:
    """What is added to the output of one part of the synthesis network.

    Attributes:
        layer: its name under `G.synthesis`.
        steps: int8 [C, h, w].
        unit: float32 [C, 1, 1], what one step of a channel is worth.
    """

    layer: str
    steps: Tensor
    unit: Tensor

    @property
    def values(self) -> Tensor:
        """The offset itself, float32 [C, h, w]."""
        return self.steps.float() * self.unit


def quantised(layer: str, values: Tensor) -> FeatureOffset:
    """Round `values` [C, h, w] to 8 bits, channel by channel."""
    unit = values.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-12) / 127
    return FeatureOffset(layer, (values / unit).round().to(torch.int8), unit.float())


@dataclass(frozen=True, eq=False)
class Changes:
    """All that belongs to one person beside the code and the noise.

    Attributes:
        factors: name of a weight under `G.synthesis` => up [O, r] and down [r, I*kh*kw], whose product is added to it.
        feature: added to a feature map, or nothing.
        styles: name of an affine layer under `G.synthesis` => [C], added to the styles that it makes of w.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    feature: FeatureOffset | None = None
    styles: Mapping[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.factors) or self.feature is not None or bool(self.styles)

    def with_styles(self, styles: Mapping[str, Tensor], strength: float = 1.0) -> Changes:
        """Return the same changes with `strength` times `styles` added to those that are there."""
        sums = dict(self.styles)
        for name, offset in styles.items():
            sums[name] = sums[name] + strength * offset if name in sums else strength * offset
        return replace(self, styles=sums)


def synthesis_of(G: Generator) -> nn.Module:
    """The half of a generator that people change."""
    assert isinstance(G.synthesis, nn.Module)
    return G.synthesis


def tunable(G: Generator) -> dict[str, Tensor]:
    """Name under `G.synthesis` => every convolution's weight [O, I, kh, kw]."""
    return {name: p for name, p in synthesis_of(G).named_parameters() if p.ndim == 4}


def changed(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Add the product of two factors to a weight."""
    return weight + (up @ down).view_as(weight)


def _parts(synthesis: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The network's blocks or layers in order; lists of them are looked into."""
    for name, child in synthesis.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{i}", module) for i, module in enumerate(child))
        else:
            yield name, child


def _map_of(output: Any) -> Tensor:
    """Return the feature map in what a block (map and picture) or a layer (map) puts out."""
    x: Tensor = output[0] if isinstance(output, tuple) else output
    return x


def feature_layers(G: Generator) -> dict[str, tuple[int, int, int]]:
    """Name under `G.synthesis` => [C, h, w] of the feature map that the part puts out, in order of execution."""
    shapes: dict[str, tuple[int, int, int]] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if _map_of(output).ndim == 4:
                channels, height, width = _map_of(output).shape[1:]
                shapes[name] = (channels, height, width)

        return hook

    own = twin(G)
    for name, part in _parts(synthesis_of(own)):
        part.register_forward_hook(watch(name))
    with torch.no_grad():
        own.synthesis(G.w_avg.expand(1, G.num_ws, -1), noise_mode="const")
    return shapes


def adding(synthesis: nn.Module, layer: str, offset: Callable[[], Tensor]) -> None:
    """Make a part of `synthesis` add what `offset` gives, [C, h, w], to the feature map that it puts out."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        x, more = _map_of(output), offset()
        if x.shape[1:] != more.shape:
            raise InputError(f"the person's feature map {layer} does not fit this generator", hint=HINT)
        x = x + more.to(x.dtype)
        return (x, *output[1:]) if isinstance(output, tuple) else x

    synthesis.get_submodule(layer).register_forward_hook(hook)


def restyling(synthesis: nn.Module, layer: str, offset: Tensor) -> None:
    """Make an affine layer of `synthesis` add `offset` [C] to the styles that it puts out.

    Raises:
        InputError: there is no such layer, or it has other styles.
    """
    module = dict(synthesis.named_modules()).get(layer)
    if module is None or not layer.endswith("affine") or module.get_parameter("bias").shape != offset.shape:
        raise InputError(f"the styles of {layer} do not fit this generator", hint=HINT)
    module.register_forward_hook(lambda _module, _inputs, styles: styles + offset.to(styles))


def twin(G: Generator) -> Generator:
    """Return a copy of `G` that shares all of its tensors and may be given other ones."""
    net = cast(nn.Module, G)
    memo: dict[int, Any] = {id(t): t for t in (*net.parameters(), *net.buffers())}
    return cast(Generator, copy.deepcopy(net, memo))


def personal(G: Generator, changes: Changes) -> Generator:
    """Return one person's generator, which shares with `G` all that is not changed; `G` stays as it is.

    Raises:
        InputError: the changes were made for another generator.
    """
    own = twin(G)
    device, synthesis, weights = G.w_avg.device, synthesis_of(own), tunable(G)
    for name, (up, down) in changes.factors.items():
        base = weights.get(name)
        if base is None or (len(base), base[0].numel()) != (len(up), down.shape[1]):
            raise InputError(f"the person's change of {name} does not fit this generator", hint=HINT)
        new = changed(base, up.to(device).float(), down.to(device).float())
        owner, _, leaf = name.rpartition(".")
        setattr(synthesis.get_submodule(owner), leaf, nn.Parameter(new, requires_grad=False))
    if changes.feature is not None:
        layer = changes.feature.layer
        if layer not in dict(_parts(synthesis)):
            raise InputError(f"this generator has no feature map {layer}", hint=HINT)
        offset = changes.feature.values.to(device)
        adding(synthesis, layer, lambda: offset)
    for name, styles in changes.styles.items():
        restyling(synthesis, name, styles.to(device))
    return own
