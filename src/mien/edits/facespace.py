"""FaceSpace: a few people as the corners of a space of weights, whose inner points are blends of them.

A small network carries weights [K] (one-hot for a person) to codes. It adds to the weighted mean of the people's codes
what makes the corners themselves nearer to their pictures, and is held to that mean between the corners, so that blends
follow the weights. Untrained it is the mean, which is the direct way.

Source: the roles and losses of github.com/tanth1996/StyleGAN-FaceSpace; equalised features: Karras et al. 2019.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mien.atomic import replacing
from mien.errors import InputError, UnsupportedFileError
from mien.inversion.objective import FaceModel, Target
from mien.losses import perceptual, squared_error
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["FaceSpace", "FaceSpaceConfig", "differences", "fit", "load_facespace", "save_facespace"]

HEADER, FORMAT = "mien_facespace", 1
LARGEST_TURN_DEG, LARGEST_LIGHT = 20.0, 0.35


@dataclass(frozen=True, kw_only=True)
class FaceSpaceConfig:
    """Settings of `fit`."""

    num_cycles: int = 2  # each with a tenth of the learning rate of the one before; 0 = the direct way
    num_steps: int = 100  # of each cycle
    lr: float = 1e-2
    anneal: float = 0.1
    image_weight: float = 1.0  # squared difference of pixels, at the corners
    feature_weight: float = 1.0  # of the face network's maps, at the corners
    latent_weight: float = 1.0  # squared distance from the weighted mean, in units of the spread of w, everywhere
    hidden: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_cycles < 0 or self.num_steps < 1:
            raise InputError(f"cycles from 0 and steps from 1, got {self.num_cycles} and {self.num_steps}")
        if self.lr <= 0 or not 0 < self.anneal <= 1:
            raise InputError(f"lr must be above 0 and anneal at most 1, got {self.lr} and {self.anneal}")


class FaceSpace(nn.Module):
    """Weights [N, K] of K people to codes [N, num_ws, w_dim].

    Args:
        num_people: K.
        num_ws: rows of the generator.
        w_dim: width of a row.
        hidden: width of the network.
    """

    ws: Tensor

    def __init__(self, num_people: int, num_ws: int, w_dim: int, *, hidden: int = 64) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()
        self.network = ""
        self.register_buffer("ws", torch.zeros(num_people, num_ws, w_dim))
        self.fc = nn.Linear(num_people, hidden)
        self.out = nn.Linear(hidden, num_ws * w_dim, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, weights: Tensor) -> Tensor:
        """Carry weights [N, K], each row with a sum of 1, to ws [N, num_ws, w_dim]."""
        mean = torch.einsum("nk,krd->nrd", weights, self.ws)
        more: Tensor = self.out(F.leaky_relu(self.fc(weights), 0.2))
        return mean + more.unflatten(1, self.ws.shape[1:])

    @torch.no_grad()
    def blend(self, weights: Sequence[float]) -> Tensor:
        """Blend the people: their weights, at least one above 0, become shares; ws [num_ws, w_dim].

        Raises:
            InputError: not one weight for each person, or none above 0.
        """
        if len(weights) != len(self.ws):
            raise InputError(f"{len(weights)} weights for {len(self.ws)} people", hint="give one for each")
        shares = torch.tensor(list(weights), dtype=torch.float32, device=self.ws.device)
        if not shares.isfinite().all() or (shares < 0).any() or float(shares.sum()) <= 0:
            raise InputError(f"weights must be at least 0, and one above it, got {list(weights)}")
        ws: Tensor = self(shares[None] / shares.sum())
        return ws[0]

    def morph(self, a: int, b: int, num: int) -> Tensor:
        """Go from person `a` to person `b` in `num` pictures, slowly at both ends: ws [num, num_ws, w_dim].

        Raises:
            InputError: a person who is not there, or fewer than two pictures.
        """
        people = len(self.ws)
        if not (0 <= a < people and 0 <= b < people):
            raise InputError(f"people go from 0 to {people - 1}, got {a} and {b}")
        if num < 2:
            raise InputError(f"a morph has at least 2 pictures, got {num}")
        codes = []
        for i in range(num):
            t = 0.5 - 0.5 * math.cos(math.pi * i / (num - 1))
            weights = [0.0] * people
            weights[a] += 1 - t
            weights[b] += t
            codes.append(self.blend(weights))
        return torch.stack(codes)


def differences(img: Tensor, turn_deg: Tensor) -> list[str]:
    """Say why faces will not blend well, by img [K, 3, H, W] in [-1, 1] and how far each is turned, degrees [K]."""
    warnings = []
    light = img.mean(dim=(1, 2, 3)) / 2 + 0.5
    if (spread := float(turn_deg.max() - turn_deg.min())) > LARGEST_TURN_DEG:
        warnings.append(f"heads are turned {spread:.0f} degrees apart; blends between them may double the features")
    if (spread := float(light.max() - light.min())) > LARGEST_LIGHT:
        warnings.append(
            f"the lightest picture is {spread:.2f} lighter than the darkest, of 1; blends change the light too"
        )
    return warnings


def fit(
    G: Generator,
    ws: Tensor,
    img: Tensor,
    *,
    names: Sequence[str] = (),
    config: FaceSpaceConfig | None = None,
    face_model: FaceModel | None = None,
    w_std: float = 1.0,
    on_step: Sink = ignore,
) -> FaceSpace:
    """Fit a space to a few people.

    Args:
        G: their generator; nothing of it is changed.
        ws: [K, num_ws, w_dim], one code for each.
        img: [K, 3, H, W] in [-1, 1], their pictures.
        names: of the people.
        config: settings.
        face_model: network whose features are compared too.
        w_std: spread of w.
        on_step: hears of every step.

    Raises:
        InputError: fewer than two people, or codes and pictures that do not go together.
    """
    config = config or FaceSpaceConfig()
    if len(ws) < 2 or len(ws) != len(img) or ws.shape[1:] != (G.num_ws, G.w_dim):
        raise InputError(f"at least two people with a code and a picture each, got {list(ws.shape)}, {list(img.shape)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        space = FaceSpace(len(ws), G.num_ws, G.w_dim, hidden=config.hidden).to(img.device)
    space.ws.copy_(ws)
    space.names = tuple(names) or tuple(str(i) for i in range(len(ws)))
    corners, target = torch.eye(len(ws), device=img.device), Target.of(img, face_model)
    gen = torch.Generator().manual_seed(config.seed)
    total = config.num_cycles * config.num_steps
    for cycle in range(config.num_cycles):
        adam = torch.optim.Adam([*space.fc.parameters(), *space.out.parameters()], lr=config.lr * config.anneal**cycle)
        for step in range(config.num_steps):
            inner = -torch.rand(len(ws), len(ws), generator=gen).clamp(min=1e-6).log()
            inner = (inner / inner.sum(1, keepdim=True)).to(img.device)  # evenly over the space
            codes, between = space(corners), space(inner)
            mean = torch.einsum("nk,krd->nrd", torch.cat([corners, inner]), space.ws)
            away = (torch.cat([codes, between]) - mean).square().sum(2).mean() / w_std**2
            loss = config.latent_weight * away
            render = G.synthesis(codes, noise_mode="const")
            loss = loss + config.image_weight * squared_error(render, target.img).mean()
            if face_model is not None:
                loss = loss + config.feature_weight * perceptual(face_model(render).maps, target.maps).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            on_step(Step("facespace", cycle * config.num_steps + step + 1, total, {"loss": float(loss.detach())}))
    return space.requires_grad_(False)


def save_facespace(space: FaceSpace, path: Path, *, config: FaceSpaceConfig | None = None) -> None:
    """Write a space as safetensors, whole or not at all."""
    facts = {
        "format": FORMAT,
        "names": space.names,
        "network": space.network,
        "config": asdict(config) if config else {},
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in space.state_dict().items()}
    data = save(tensors, metadata={HEADER: json.dumps(facts)})
    with replacing(path) as part:
        part.write_bytes(data)


def load_facespace(path: Path) -> FaceSpace:
    """Read what `save_facespace` wrote.

    Raises:
        UnsupportedFileError: not there, damaged, or not a space.
    """
    hint = "give a file that `mien facespace fit` wrote"
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts["format"] != FORMAT:
            raise UnsupportedFileError(f"{path} has another format", hint="a newer mien may read it")
        num_people, num_ws, w_dim = tensors["ws"].shape
        space = FaceSpace(num_people, num_ws, w_dim, hidden=len(tensors["fc.bias"]))
        space.load_state_dict(tensors)
        space.names, space.network = tuple(map(str, facts["names"])), str(facts["network"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as err:
        raise UnsupportedFileError(f"{path} holds no space of faces", hint=hint) from err
    return space.requires_grad_(False)
