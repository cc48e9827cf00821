"""Face swap: one person's face on other people's photos, with their pose, expression, light and surroundings.

Who somebody is lies in their own pixels. They are carried to where the points of a face are in the target's pose and
expression, get the target's light and contrast, and are blended into the target within its outline; between lips that
open the target's mouth stays. So a network that tells people apart need not be believed.

The code of the same face is found beside it. The source's own code in the source's own generator (an editable pivot,
then tuned weights) already is that person, so it is moved as little as can be: first the likeliest move of w that
changes pose and expression to the target's, by a linear model of the generator's own samples; then a short descent on
those moves and, less, on the rows, towards the carried face; then the weights learn the picture. Without pixels to
carry (`use_pixels`), the render is blended into the target, and identity, read on several views, steers the descent.

Source: losses: Zhu et al. 2021 (MegaFS), arXiv:2105.04932, and Wang et al. 2021 (HifiFace), Sec. 3.3, arXiv:2106.09965;
a person's own weights: Roich et al. 2021, arXiv:2106.05744; edits near W: Tov et al. 2021, arXiv:2102.02766; identity
of one face in the shape of another's expression: Vlasic et al. 2005 (face transfer), doi:10.1145/1073204.1073209.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.edits.find import linear_model
from mien.edits.graft import Seam, carried, mean_inside
from mien.errors import InputError
from mien.faces.seams import visible
from mien.images import resize
from mien.inversion.code import Inversion
from mien.inversion.personal import Changes, personal
from mien.inversion.project import Schedule
from mien.inversion.tune import TuneConfig, tune
from mien.latents import LatentStats, broadcast, sample_w, scale_rows
from mien.losses import identity_distance
from mien.nets.features import FaceNet
from mien.nets.generator import Generator
from mien.nets.motion import FaceMotion
from mien.report import Sink, Step, ignore

__all__ = [
    "Describe",
    "Moves",
    "Swap",
    "SwapConfig",
    "SwapMeans",
    "attribute_moves",
    "joined",
    "random_view",
    "swap",
]

Describe = Callable[[Tensor], Tensor]
"""FFHQ-aligned faces [N, 3, H, H] in [-1, 1] to identities [N, D] of unit length."""

POSE_UNIT_DEG = 10.0


@dataclass(frozen=True, kw_only=True)
class SwapConfig(Schedule):
    """Settings of `swap`. Lengths in W are in units of the spread of w, moves in standard deviations of attributes."""

    num_steps: int = 30
    lr: float = 0.05  # of the moves
    row_lr: float = 0.01  # of the rows, 0 = moves alone
    num_views: int = 2  # of every composite, on which identity is read beside the composite itself
    first: int = 0  # row that is first the source's,
    last: int = 17  # and last, counted in 18 rows; the others begin as the target's
    num_samples: int = 512  # of the generator, that tell how pose and expression move
    ridge: float = 0.3  # shrinkage of their linear model
    reach: float = 1.5  # farthest first move of one attribute
    use_pixels: bool = True  # the photo's own, where the motion of faces is known; False = the render
    contrast: float = 0.5  # power of the ratio of contrasts that the detail of carried pixels gets, 0 = as it is
    sigma: float = 0.2  # of the low-pass that light and colour are matched by, in sides of the crop
    inner: float = 0.93  # the face is the source's up to here, 1 being the target's outline,
    outer: float = 1.2  # and the photo is the target's from here on
    identity_weight: float = 1.0  # one minus the cosine
    pose_weight: float = 1.0  # mean square, in units of 10 degrees
    expression_weight: float = 1.5  # mean absolute difference of blendshapes
    colour_weight: float = 0.2  # mean absolute difference of the face's low frequencies, before they are matched
    border_weight: float = 0.5  # mean absolute difference of pixels around the outline
    guide_weight: float = 4.0  # mean absolute difference of the face from the one whose pixels were carried
    near_weight: float = 5.0  # squared distance of the code from where it began
    prior_weight: float = 0.02  # how unlikely the code is for the mapping
    tune_steps: int = 30  # of pivotal tuning, by which the generator learns what surrounds the face; 0 = none
    batch_size: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.first <= self.last < 18:
            raise InputError(f"rows {self.first} to {self.last}", hint="they are counted in 18, from 0 to 17")
        if not 0 < self.inner < self.outer or self.sigma <= 0:
            raise InputError(f"the face ends between {self.inner:g} and {self.outer:g} of its outline, blurs above 0")
        if self.num_samples < 2 or self.num_views < 0 or self.tune_steps < 0 or self.batch_size < 1:
            raise InputError("samples go from 2, views and steps from 0, batches from 1")


# ---- What moves a face ----------------------------------------------------------------------------------------------


class Moves(NamedTuple):
    """How w moves where attributes do: `vectors` [K, w_dim] for one standard deviation of each, `units` [K]."""

    vectors: Tensor
    units: Tensor


def attributes(face_net: FaceNet, img: Tensor) -> Tensor:
    """Read pose in degrees and blendshapes of img [N, 3, H, H] as one row, [N, K]."""
    seen = face_net(img)
    return torch.cat([seen.pose, seen.expression], dim=1)


@torch.no_grad()
def attribute_moves(
    G: Generator, face_net: FaceNet, config: SwapConfig | None = None, *, on_step: Sink = ignore
) -> Moves:
    """Learn from the generator's own samples where w goes when pose or expression change and nothing else is known."""
    config = config or SwapConfig()
    w = G.w_avg.lerp(sample_w(G, config.num_samples, seed=config.seed), 0.8)
    parts: list[Tensor] = []
    for some in w.split(32):
        parts.append(attributes(face_net, G.synthesis(broadcast(some, G.num_ws), noise_mode="const").clamp(-1, 1)))
        on_step(Step("samples", 32 * (len(parts) - 1) + len(some), len(w)))
    values = torch.cat(parts).float().cpu()
    units = values.std(dim=0).clamp(min=1e-3)
    vectors, _ = linear_model(values / units, w.cpu(), config.ridge)
    return Moves(vectors.float().to(w.device), units.to(w.device))


@dataclass(frozen=True)
class SwapMeans:
    """What a swap works with.

    Attributes:
        face_net: reads pose, expression and, unless `describe` is given, identity.
        moves: what `attribute_moves` learnt.
        stats: of the generator.
        describe: another recogniser to steer by, say ArcFace.
        motion: how points of a face move, by which pixels are carried.
    """

    face_net: FaceNet
    moves: Moves
    stats: LatentStats
    describe: Describe | None = None
    motion: FaceMotion | None = None

    def identity(self, img: Tensor) -> Tensor:
        """Whose faces img [N, 3, H, H] shows, [N, D] of unit length."""
        return self.face_net(img).identity if self.describe is None else self.describe(img)


# ---- What is looked at ----------------------------------------------------------------------------------------------


def random_view(img: Tensor, seed: int) -> Tensor:
    """Turn, move, enlarge and perhaps mirror all of img [N, 3, H, H] alike, a little: another look at each face."""
    r = torch.rand(5, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    angle, scale = float(0.08 * r[0]), 1 + float(0.06 * r[1])
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    mirror = 1.0 if r[2] > 0 else -1.0
    theta = img.new_tensor([[mirror * cos, -sin, 0.06 * r[3]], [mirror * sin, cos, 0.06 * r[4]]])
    points = F.affine_grid(theta.expand(len(img), -1, -1), list(img.shape), align_corners=False)
    return F.grid_sample(img, points, mode="bilinear", padding_mode="reflection", align_corners=False)


# ---- The swap -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Swap:
    """A person on a target.

    Attributes:
        img: [1, 3, H, W], the target's crop with the other face.
        within: [1, 1, H, W] mask; where it is 0 the target is as it was.
        code: of the person as the target stands there; renders as `img`, about, and can be edited.
        terms: of the loss at the end, unweighted.
    """

    img: Tensor
    within: Tensor
    code: Inversion
    terms: dict[str, float]


@dataclass(frozen=True)
class _Wanted:
    """What N composites are to show."""

    identity: Tensor  # [N, D]
    values: Tensor  # [N, K], pose and expression
    seam: Seam
    guide: Tensor | None = None  # [N, 3, S, S], what they look like, where that is known

    def terms(self, img: Tensor, means: SwapMeans, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Say how far composites [N, 3, S, S] are from it, [N] each; identity on a view of every seed too."""
        off = attributes(means.face_net, img) - self.values
        views = [img, *(random_view(img, seed) for seed in seeds)]
        guided = {} if self.guide is None else {"guide": mean_inside((img - self.guide).abs(), self.seam.face)}
        return guided | {
            "identity": torch.stack([identity_distance(means.identity(v), self.identity) for v in views]).mean(0),
            "pose": (off[:, :3] / POSE_UNIT_DEG).square().mean(1),
            "expression": off[:, 3:].abs().mean(1),
        }


def _descend(
    G: Generator, start: Tensor, first: Tensor, wanted: _Wanted, means: SwapMeans, config: SwapConfig, on_step: Sink
) -> tuple[Tensor, list[dict[str, float]]]:
    """Move codes `start` by `first` [N, K] and go on from there; ws, and the terms of each at the end."""
    vectors, stats = means.moves.vectors, means.stats
    steps, rows = first.clone().requires_grad_(), torch.zeros_like(start).requires_grad_()
    adam = torch.optim.Adam([{"params": [steps]}, {"params": [rows]}])
    row_unit = config.row_lr / config.lr * stats.w_std / math.sqrt(G.w_dim)
    begin = start + (first @ vectors)[:, None]
    for step in range(config.num_steps + 1):
        ws = start + (steps @ vectors)[:, None] + rows
        img, fit = wanted.seam.compose(G.synthesis(ws, noise_mode="const"))
        seeds = [(config.seed * 1_000_003 + step) * 101 + view for view in range(config.num_views)]
        terms = wanted.terms(img, means, seeds) | fit
        terms["near"] = (ws - begin).square().sum(2).mean(1) / stats.w_std**2
        terms["prior"] = stats.unlikelihood(ws).mean(1)
        score = torch.stack([getattr(config, f"{name}_weight") * value for name, value in terms.items()]).sum(0)
        on_step(Step("swap", step, config.num_steps, {"loss": float(score.detach().mean())}))
        if step == config.num_steps:
            break
        for group, unit in zip(adam.param_groups, (1.0, row_unit), strict=True):
            group["lr"] = config.rate(step) * unit
        steps.grad, rows.grad = torch.autograd.grad(score.sum(), [steps, rows])
        adam.step()
    return ws.detach(), [{name: float(value.detach()[i]) for name, value in terms.items()} for i in range(len(ws))]


def joined(first: Changes, second: Changes) -> Changes:
    """Return the changes of weights that are `first` and then `second`: the factors stand side by side."""
    factors = dict(first.factors)
    for name, (up, down) in second.factors.items():
        if name in factors:
            up, down = torch.cat([factors[name][0], up], 1), torch.cat([factors[name][1], down], 0)
        factors[name] = (up, down)
    return replace(first, factors=factors)


def _settled(
    G: Generator, img: Tensor, ws: Tensor, means: SwapMeans, config: SwapConfig, on_step: Sink
) -> list[Inversion]:
    """Let the generator learn composites img [N, 3, S, S], so that what surrounds the faces is the targets'."""
    codes = [Inversion(ws=code) for code in ws]
    if not config.tune_steps:
        return codes
    tuning = TuneConfig(num_steps=config.tune_steps, seed=config.seed)
    return tune(G, img, codes, config=tuning, face_model=means.face_net, stats=means.stats, on_step=on_step)


def _swap_from(
    G: Generator,
    source: Inversion,
    from_values: Tensor,
    wanted: _Wanted,
    other_ws: Tensor,
    means: SwapMeans,
    config: SwapConfig,
    on_step: Sink,
) -> tuple[Tensor, list[Inversion]]:
    """Put the person of one code, whose pose and expression are `from_values` [K], on N targets: pictures and codes."""
    changes = replace(source.changes, feature=None)  # a feature map would stay where the source's picture has it
    own = personal(G, changes) if changes else G
    rows = scale_rows(range(config.first, config.last + 1), G.num_ws)
    start = other_ws.clone()
    start[:, rows] = source.ws.to(other_ws)[rows]
    first = ((wanted.values - from_values) / means.moves.units).clamp(-config.reach, config.reach)
    ws, terms = _descend(own, start, first, wanted, means, config, on_step)
    img = wanted.guide
    if img is None:
        with torch.no_grad():
            img, _ = wanted.seam.compose(own.synthesis(ws, noise_mode="const"))
    codes = _settled(own, img, ws, means, config, on_step)
    with torch.no_grad():
        img, _ = wanted.seam.compose(torch.cat([code.render(own) for code in codes]))
    found = [
        replace(source, ws=code.ws, noise=(), changes=joined(changes, code.changes), losses=losses, preview=None)
        for code, losses in zip(codes, terms, strict=True)
    ]
    return img, found


def _check(G: Generator, **pictures: Tensor) -> None:
    side = G.img_resolution
    for name, img in pictures.items():
        is_square = img.ndim == 4 and img.shape[1] == 3 and img.shape[2] == img.shape[3]
        if not is_square or not len(img) or img.shape[3] % side:
            wanted = f"[N, 3, {side}, {side}] or a multiple of that"
            raise InputError(f"{name} must be {wanted}, got {list(img.shape)}", hint="align the photos first")


def swap(
    G: Generator,
    sources: Sequence[Inversion],
    source_img: Tensor,
    targets: Sequence[Inversion],
    target_img: Tensor,
    *,
    means: SwapMeans,
    config: SwapConfig | None = None,
    on_step: Sink = ignore,
) -> list[Swap]:
    """Put one person on each of N targets.

    Of several photos of the person the identities are averaged; each target begins at the one whose pose and expression
    are nearest to its own. Targets of a batch never meet.

    Args:
        G: the generator; nothing of it is changed.
        sources: codes of K photos of one person, best with an editable pivot and tuned weights.
        source_img: [K, 3, H, H] in [-1, 1], the photos' crops at the generator's side or a multiple of it.
        targets: codes of the N targets, best editable ones too: what they do not show hides a face.
        target_img: [N, 3, S, S] in [-1, 1], the targets' crops, likewise.
        means: what to work with.
        config: settings.
        on_step: hears of every step.

    Returns:
        Swaps at the targets' side S where pixels are carried, else at the generator's.

    Raises:
        InputError: pictures of another side, or not one code for each.
    """
    config = config or SwapConfig()
    _check(G, source_img=source_img, target_img=target_img)
    if len(sources) != len(source_img) or len(targets) != len(target_img):
        raise InputError("a code is needed for every picture of source and target")
    small = resize(target_img, G.img_resolution)
    motion = means.motion if config.use_pixels else None
    with torch.no_grad():
        identity = F.normalize(means.identity(source_img).mean(0, keepdim=True), dim=1)
        from_values, values = (attributes(means.face_net, img) for img in (source_img, target_img))
        seen = visible(small, torch.cat([code.code_alone().render(G) for code in targets]))
    nearest = ((values[:, None] - from_values) / means.moves.units).square().sum(2).argmin(1)  # [N]
    done: dict[int, Swap] = {}
    for k in range(len(sources)):
        for batch in (nearest == k).nonzero()[:, 0].split(config.batch_size):
            if not len(batch):
                continue
            place: dict[str, float] = dict(inner=config.inner, outer=config.outer, sigma=config.sigma)
            seam = Seam.of(small[batch], values[batch, 0], seen[batch], **place)
            wanted = _Wanted(identity.expand(len(batch), -1), values[batch], seam)
            pictures = None
            if motion is not None:
                sharp = Seam.of(target_img[batch], values[batch, 0], seen[batch], **place)
                with torch.no_grad():
                    one = (source_img[k : k + 1], from_values[k : k + 1])
                    pictures, _ = sharp.compose(carried(motion, *one, values[batch], sharp, contrast=config.contrast))
                wanted = replace(wanted, guide=resize(pictures, G.img_resolution))
            other_ws = torch.stack([targets[i].ws for i in batch.tolist()]).to(target_img)
            img, codes = _swap_from(G, sources[k], from_values[k], wanted, other_ws, means, config, on_step)
            img, within = (img, seam.within) if pictures is None else (pictures, sharp.within)
            for i, row in enumerate(batch.tolist()):
                done[row] = Swap(img[i : i + 1], within[i : i + 1], codes[i], dict(codes[i].losses))
    return [done[i] for i in range(len(targets))]
