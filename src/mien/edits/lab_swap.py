"""The face swap of a face lab: the target's picture is projected, with the source's identity in the loss.

Reconstruction 1, perceptual distance 2, identity 1, Adam at 0.01 for 100 steps: the preset `lab-swap`. All that is not
identity pulls to the target, so most of the target stays; `edits.swap` begins at the source instead.

Source: the settings of a face lab's course work, see `mien.inversion.invert.PRESETS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.edits.graft import Seam
from mien.edits.swap import Swap, SwapConfig, SwapMeans
from mien.faces.seams import visible
from mien.inversion.code import Inversion
from mien.inversion.invert import PRESETS
from mien.inversion.objective import Target
from mien.inversion.project import ProjectConfig, project
from mien.nets.generator import Generator
from mien.report import Sink, ignore

__all__ = ["lab_swap"]


def lab_swap(
    G: Generator,
    source_img: Tensor,
    targets: Sequence[Inversion],
    target_img: Tensor,
    *,
    means: SwapMeans,
    projection: ProjectConfig | None = None,
    config: SwapConfig | None = None,
    on_step: Sink = ignore,
) -> list[Swap]:
    """Put one person on each of N targets as the lab does, then blend the face into the target as `swap` does.

    Args:
        G: the generator; nothing of it is changed.
        source_img: [K, 3, H, W] in [-1, 1], crops of one person; the identities are averaged.
        targets: codes of the N targets, where their projection begins.
        target_img: [N, 3, H, W] in [-1, 1].
        means: what a swap works with; its face network alone is the judge of looks and identity.
        projection: settings, by default those of the preset `lab-swap`.
        config: of the seam.
        on_step: hears of every step.
    """
    stage, config = projection or PRESETS["lab-swap"].stages[0], config or SwapConfig()
    assert isinstance(stage, ProjectConfig)
    with torch.no_grad():
        identity = F.normalize(means.face_net(source_img).identity.mean(0, keepdim=True), dim=1)
        yaw_deg = means.face_net(target_img).pose[:, 0]
        seen = visible(target_img, torch.cat([code.code_alone().render(G) for code in targets]))
    wanted = replace(Target.of(target_img, means.face_net), identity=identity.expand(len(target_img), -1))
    start = torch.stack([code.ws for code in targets]).to(target_img)
    found = project(
        G,
        target_img,
        config=stage,
        start=start,
        target=wanted,
        face_model=means.face_net,
        stats=means.stats,
        on_step=on_step,
    )
    seam = Seam.of(target_img, yaw_deg, seen, inner=config.inner, outer=config.outer, sigma=config.sigma)
    with torch.no_grad():
        img, _ = seam.compose(torch.cat([code.render(G) for code in found]))
    return [Swap(img[i : i + 1], seam.within[i : i + 1], code, dict(code.losses)) for i, code in enumerate(found)]
