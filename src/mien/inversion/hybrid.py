"""Hybrid inversion: what the generator can show goes into its weights, what it cannot goes into a feature map.

A code renders what faces have in common well and the rest, hats, hands, backgrounds, badly. Where the first render is
near, a few steps change the weights; where it is far, an offset of one feature map makes up for what is missing, and
leaves the weights in peace.

Source: Cao et al. 2023 (domain-specific hybrid refinement), arXiv:2301.12141; regions are squares, not superpixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.objective import FaceModel, Target, TermWeights, picture_terms, total
from mien.inversion.personal import Changes, adding, feature_layers, personal, quantised, synthesis_of
from mien.inversion.project import Schedule, noise_options
from mien.inversion.tune import TuneConfig, descend, tune
from mien.latents import LatentStats
from mien.nets.generator import Generator
from mien.report import Sink, ignore

__all__ = ["HybridConfig", "hybrid", "in_domain"]


@dataclass(frozen=True, kw_only=True)
class HybridConfig(Schedule):
    """Settings of `hybrid`; the schedule is that of the feature map."""

    num_steps: int = 30
    lr: float = 0.1
    tune: TuneConfig = field(default_factory=TuneConfig)  # of the weights
    near: float = 0.10  # mean difference, of [-1, 1], up to which a place belongs to the weights,
    far: float = 0.25  # and from which it belongs to the features
    feature_share: float = 0.25  # side of the feature map, of the picture's
    terms: TermWeights = field(default_factory=TermWeights)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.near < self.far:
            raise InputError(f"near must be above 0 and below far, got {self.near} and {self.far}")
        if not 0 < self.feature_share <= 1:
            raise InputError(f"feature_share must be above 0 and at most 1, got {self.feature_share}")


def in_domain(render: Tensor, img: Tensor, *, near: float, far: float) -> Tensor:
    """Say where a render is so near to the picture that the generator can show what is there.

    Args:
        render: [N, 3, H, H].
        img: likewise.
        near: mean absolute difference around a place up to which it is 1,
        far: and from which it is 0.

    Returns:
        [N, 1, H, H] in [0, 1].
    """
    side = max(1, render.shape[-1] // 8) | 1
    error = (render - img).abs().mean(dim=1, keepdim=True)
    error = F.avg_pool2d(error, side, 1, side // 2, count_include_pad=False)
    return ((far - error) / (far - near)).clamp(0, 1)


def feature_layer(G: Generator, share: float) -> str:
    """Name the last part, but not the very last, whose feature map is at most `share` of the picture wide."""
    parts = feature_layers(G)
    fitting = [name for name, (_, _, width) in list(parts.items())[:-1] if width <= share * G.img_resolution]
    return fitting[-1] if fitting else next(iter(parts))


def _add_features(
    G: Generator,
    target: Target,
    inversion: Inversion,
    inside: Tensor,
    config: HybridConfig,
    face_model: FaceModel | None,
    on_step: Sink,
) -> Inversion:
    layer = feature_layer(G, config.feature_share)
    shape = feature_layers(G)[layer]
    own = personal(G, Changes(inversion.changes.factors))
    outside = 1 - F.interpolate(inside, shape[1:], mode="area")[0]  # [1, h, w]
    offset = torch.zeros(shape, device=target.img.device).requires_grad_()
    synthesis = synthesis_of(own)
    ws, options = inversion.ws[None].to(target.img.device), noise_options(inversion.noise, target.img.device)
    adding(synthesis, layer, lambda: offset * outside)

    def objective(_step: int) -> tuple[Tensor, dict[str, Tensor]]:
        terms = picture_terms(synthesis(ws, noise_mode="const", **options), target, config.terms, face_model)
        score = total(terms, config.terms)
        return score.sum(), {"total": score.detach(), **{name: value.detach() for name, value in terms.items()}}

    losses = descend([offset], objective, config, stop=0.0, stage="features", on_step=on_step)
    kept = quantised(layer, (offset * outside).detach())
    return replace(inversion, changes=replace(inversion.changes, feature=kept), losses=losses)


def hybrid(
    G: Generator,
    img: Tensor,
    found: list[Inversion],
    *,
    config: HybridConfig | None = None,
    face_model: FaceModel | None = None,
    stats: LatentStats,
    on_step: Sink = ignore,
) -> list[Inversion]:
    """Divide each picture by how well its code renders it; tune the weights for one part, a feature map for the other.

    Args:
        G: the generator; nothing of it is changed.
        img: [N, 3, H, W] in [-1, 1].
        found: the pictures' codes.
        config: settings.
        face_model: network for the perceptual and identity terms.
        stats: of the generator.
        on_step: hears of every step of everybody.
    """
    config = config or HybridConfig()
    refined = []
    for i, inversion in enumerate(found):
        one = img[i : i + 1]
        inside = in_domain(inversion.render(G), one, near=config.near, far=config.far)
        (tuned,) = tune(
            G,
            one,
            [inversion],
            config=config.tune,
            masks=inside,
            face_model=face_model,
            stats=stats,
            on_step=on_step,
        )
        refined.append(_add_features(G, Target.of(one, face_model), tuned, inside, config, face_model, on_step))
    return refined
