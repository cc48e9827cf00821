"""StyleSpace: directions of single channels of the styles, which change one thing and little else.

Gradients of every attribute by every channel, at many faces, say which channels are worth trying; each of these is then
moved on renders, one way and the other. Of all combinations of the tried channels that raise one attribute by one
standard deviation and hardly move the others, the direction is the shortest one, where a channel's length is in its own
standard deviations and grows with the identity that it costs.

Source: Wu et al. 2021 (StyleSpace), Sec. 3-5, arXiv:2011.12799.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mien.edits.directions import AnyDirection, DirectionSet, StyleDirection
from mien.edits.find import Attribute, FindConfig, calibrated, finished
from mien.edits.probe import Probe, Scorer, sample_spread
from mien.edits.sefa import NOT_STYLES
from mien.errors import InputError
from mien.latents import broadcast, sample_w
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["Channel", "StyleConfig", "best_channels", "style_gradients", "style_layers", "style_spread", "stylespace"]


@dataclass(frozen=True, kw_only=True)
class StyleConfig:
    """Settings of `stylespace`."""

    num_faces: int = 48  # whose gradients are taken
    num_spread: int = 2000  # samples that tell the standard deviation of a channel
    num_candidates: int = 16  # channels of an attribute that are tried on renders
    num_channels: int = 8  # of a direction
    try_at: float = 4.0  # standard deviations by which a channel is moved
    identity_weight: float = 4.0  # of the identity that a channel costs, beside its length
    other_weight: float = 100.0  # of the squared changes of other attributes
    batch_size: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.num_channels <= self.num_candidates:
            what = f"{self.num_channels} channels of {self.num_candidates} candidates"
            raise InputError(f"cannot choose {what}", hint="take at least as many candidates as channels")


class Channel(NamedTuple):
    """One channel of the styles that a layer makes."""

    layer: str
    idx: int


def style_layers(G: Generator) -> dict[str, int]:
    """Name under `G.synthesis` => channels of every layer that makes styles; colours alone are left out."""
    assert isinstance(G.synthesis, nn.Module)
    return {
        name: len(module.get_parameter("bias"))
        for name, module in G.synthesis.named_modules()
        if name.endswith("affine") and not any(part in NOT_STYLES for part in name.split("."))
    }


@contextmanager
def _watched(G: Generator, *, is_leaf: bool) -> Iterator[dict[str, Tensor]]:
    """Catch the styles [N, C] of each layer as the network makes them; as leaves, zeros that are added to them."""
    assert isinstance(G.synthesis, nn.Module)
    held: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def watch(_module: nn.Module, _inputs: Any, styles: Tensor) -> Tensor:
            held[name] = torch.zeros_like(styles, requires_grad=True) if is_leaf else styles
            return styles + held[name] if is_leaf else styles

        return watch

    handles = [G.synthesis.get_submodule(name).register_forward_hook(hook(name)) for name in style_layers(G)]
    try:
        yield held
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def style_spread(G: Generator, num: int, *, truncation_psi: float = 1.0, seed: int = 0) -> dict[str, Tensor]:
    """Standard deviation of every channel over samples: layer => [C]."""
    w = G.w_avg.lerp(sample_w(G, num, seed=seed), truncation_psi)
    assert isinstance(G.synthesis, nn.Module)
    return {name: G.synthesis.get_submodule(name)(w).std(dim=0) for name in style_layers(G)}


def style_gradients(
    G: Generator, scorer: Scorer, ws: Tensor, names: Sequence[str], *, batch_size: int = 16, on_step: Sink = ignore
) -> dict[str, dict[str, Tensor]]:
    """Mean gradient of each attribute by the channels of every layer: name => layer => [C].

    Raises:
        InputError: no gradients go through the scorer.
    """
    sums: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for first, rows in enumerate(ws.split(batch_size)):
        with _watched(G, is_leaf=True) as held, torch.enable_grad():
            read = scorer(G.synthesis(rows, noise_mode="const")).attributes
        for name in names:
            if not read[name].requires_grad:
                raise InputError(f"no gradient goes through the measure of {name}", hint="use --method interfacegan")
            grads = torch.autograd.grad(read[name].sum(), list(held.values()), retain_graph=True)
            for layer, grad in zip(held, grads, strict=True):
                sums[name][layer] = sums[name].get(layer, 0) + grad.sum(dim=0) / len(ws)
        on_step(Step("gradients of styles", first * batch_size + len(rows), len(ws)))
    return sums


def best_channels(
    effects: Mapping[str, Mapping[str, Tensor]], name: str, keep: Sequence[str], num: int
) -> list[Channel]:
    """Return the channels that move attribute `name` most and purest.

    Args:
        effects: attribute => layer => [C], what one standard deviation of a channel does to it, in its own.
        name: of the attribute.
        keep: of those to leave as they are.
        num: how many channels.
    """
    places = [Channel(layer, i) for layer, row in effects[name].items() for i in range(len(row))]
    own, *others = (torch.cat(list(effects[a].values())) for a in (name, *keep))
    total = torch.stack([own, *others]).square().sum(dim=0).sqrt().clamp(min=1e-12)
    rank = own.square() / total  # the effect times its share of all effects
    return [places[int(i)] for i in rank.argsort(descending=True)[:num]]


def _direction(moves: Mapping[Channel, float], layers: Mapping[str, int], **facts: Any) -> StyleDirection:
    styles = {layer: torch.zeros(layers[layer]) for layer in layers if any(c.layer == layer for c in moves)}
    for channel, move in moves.items():
        styles[channel.layer][channel.idx] = move
    return StyleDirection(styles, **facts)


def shortest_step(slopes: Tensor, metric: Tensor, other_weight: float) -> Tensor:
    """Return d [C] with slope 1 in the first column of slopes [C, K], least in d' M d + weight |other slopes|^2."""
    own, others = slopes[:, 0], slopes[:, 1:]
    step: Tensor = torch.linalg.solve(metric + other_weight * others @ others.T, own)
    return step / (own @ step).clamp(min=1e-12)


def _combined(
    probe: Probe, a: Attribute, tried: Mapping[Channel, float], layers: Mapping[str, int], config: StyleConfig
) -> StyleDirection:
    """Try channels, each with its standard deviation, on renders; combine the best to one standard deviation of `a`."""
    facts: dict[str, Any] = dict(std=probe.spread[a.name], safe_range=(0.0, 0.0))
    channels, rows, costs = list(tried), [], []
    for channel in channels:
        one = _direction({channel: tried[channel]}, layers, unit="", **facts)
        up, down = (probe.after(one, strength) for strength in (config.try_at, -config.try_at))
        width = 2 * config.try_at
        rows.append([up.change(name, down) / (width * probe.spread[name]) for name in (a.name, *a.keep)])
        costs.append(1 - (up.likeness(probe.before) + down.likeness(probe.before)) / 2)
    slopes, cost = torch.tensor(rows).double(), torch.tensor(costs).double()
    metric = torch.diag(1 + config.identity_weight * cost / cost.mean().clamp(min=1e-12))
    step = shortest_step(slopes, metric, config.other_weight)
    best = step.abs().argsort(descending=True)[: config.num_channels]
    step = shortest_step(slopes[best], metric[best][:, best], config.other_weight)
    moves = {channels[i]: float(move) * tried[channels[i]] for i, move in zip(best.tolist(), step, strict=True)}
    return _direction(moves, layers, unit=f"{probe.spread[a.name]:.3g} {a.unit}", **facts)


def stylespace(
    G: Generator,
    scorer: Scorer,
    attributes: Sequence[Attribute],
    *,
    codes: Tensor | None = None,
    config: StyleConfig | None = None,
    find: FindConfig | None = None,
    network: str = "",
    on_step: Sink = ignore,
) -> DirectionSet:
    """Find, for each of `attributes`, the few channels that move it and little else, and calibrate them together.

    Args:
        G: the generator.
        scorer: measures pictures; gradients go through it.
        attributes: what to find, and what each leaves as it is.
        codes: ws [N, num_ws, w_dim] of faces to try on; by default truncated samples.
        config: settings of the search.
        find: settings of probes and calibration.
        network: sha256 of the generator's file, for the record.
        on_step: hears of gradients, then of every attribute.

    Raises:
        InputError: the scorer does not measure an attribute, or no gradients go through it.
    """
    config, find = config or StyleConfig(), find or FindConfig()
    spread = sample_spread(G, scorer, find.num_spread, truncation_psi=find.truncation_psi, seed=find.seed)
    for a in attributes:
        if missing := {a.name, *a.keep} - set(spread):
            raise InputError(f"nothing measures {', '.join(sorted(missing))}", hint=f"known: {', '.join(spread)}")
    if codes is None:
        codes = broadcast(sample_w(G, max(config.num_faces, find.num_probes), seed=find.seed + 1), G.num_ws)
    faces = G.w_avg.lerp(codes, find.truncation_psi)
    names = sorted({name for a in attributes for name in (a.name, *a.keep)})
    sigma = style_spread(G, config.num_spread, truncation_psi=find.truncation_psi, seed=find.seed)
    gradients = style_gradients(
        G, scorer, faces[: config.num_faces], names, batch_size=config.batch_size, on_step=on_step
    )
    effects = {
        name: {layer: (grad * sigma[layer]).cpu() / spread[name] for layer, grad in gradients[name].items()}
        for name in names
    }
    probe = Probe(G, faces[-find.num_probes :], scorer, spread)
    layers, found = style_layers(G), dict[str, AnyDirection]()
    for i, a in enumerate(attributes):
        channels = best_channels(effects, a.name, a.keep, config.num_candidates)
        start = _combined(probe, a, {c: float(sigma[c.layer][c.idx]) for c in channels}, layers, config)
        found[a.name] = finished(probe, a.name, calibrated(probe, a.name, start, find).direction, find)
        on_step(Step("calibrate", i + 1, len(attributes)))
    facts = {"method": "stylespace", "config": asdict(config), "keep": {a.name: a.keep for a in attributes}}
    return DirectionSet(found, network, facts)
