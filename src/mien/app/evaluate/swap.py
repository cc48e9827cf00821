"""How good swaps are on a folder of people: everybody on everybody else, numbers for every pair, the figure.

Identity is a judge's, best one that no swap was steered by; pose and expression are our face network's, which steers,
so they flatter; colour is the distance of mean Lab colours inside of the mask.

Source: identity retrieval, pose and expression errors: Li et al. 2019 (FaceShifter), Sec. 4.2, arXiv:1912.13457.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from skimage.color import rgb2lab
from torch import Tensor

from mien.app.evaluate.inversion import EVAL_PX
from mien.app.sitters import METHOD, Sitter, everybody, matrix
from mien.app.studio import Studio
from mien.atomic import write_text
from mien.edits.swap import Swap, SwapConfig
from mien.images import resize, save_png, to_tensor
from mien.judges import Identity
from mien.nets.features import FaceNet
from mien.report import Sink, ignore

__all__ = ["COLUMNS", "compare_swap", "evaluate_swap"]

COLUMNS = ("identity_source", "identity_target", "yaw_deg", "pitch_deg", "expression", "colour", "changed_outside")


def _view(picture: Image) -> Tensor:
    return resize(to_tensor(picture), EVAL_PX).clamp(-1, 1)


def _lab(img: Tensor, mask: Tensor) -> Tensor:
    """Mean Lab colour [3] of img [1, 3, H, W] inside the mask."""
    lab = torch.from_numpy(rgb2lab(img[0].permute(1, 2, 0).double().numpy() / 2 + 0.5))
    weight = mask[0, 0, :, :, None].double()
    return (lab * weight).sum((0, 1)) / weight.sum().clamp(min=1e-6)


@torch.no_grad()
def compare_swap(
    picture: Image, source: Sitter, target: Sitter, within: Tensor, *, identity: Identity, face_net: FaceNet
) -> dict[str, float]:
    """Compare a swapped picture with who should be seen, and with the picture that it was made of; see `COLUMNS`.

    Args:
        picture: the swapped crop.
        source: whose face.
        target: whose picture.
        within: [1, 1, S, S] mask; `changed_outside` is the share of pixels beyond it that changed.
        identity: judge of identity.
        face_net: reads pose and expression.
    """
    now, who, then = _view(picture), _view(source.picture), _view(target.picture)
    read_now, read_then = face_net(now), face_net(then)
    turned = (read_now.pose - read_then.pose).abs()[0]
    mask = resize(within.cpu(), EVAL_PX).clamp(0, 1)
    beyond = (resize(within.cpu(), picture.width) <= 1e-4)[0, 0].numpy()
    changed = (np.asarray(picture) != np.asarray(target.picture)).any(2)
    return {
        "identity_source": float(identity(now, who)),
        "identity_target": float(identity(now, then)),
        "yaw_deg": float(turned[0]),
        "pitch_deg": float(turned[1]),
        "expression": float((read_now.expression - read_then.expression).abs().mean()),
        "colour": float((_lab(now, mask) - _lab(then, mask)).norm()),
        "changed_outside": float(changed[beyond].mean()) if beyond.any() else 0.0,
    }


def summary(pairs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the medians of `COLUMNS`, and the share of pairs that are nearer to the source than to the target."""
    rows = list(pairs.values())
    nearer = sum(row["identity_source"] > row["identity_target"] for row in rows) / len(rows)
    return {key: median(row[key] for row in rows) for key in COLUMNS} | {"nearer_to_source": nearer}


def evaluate_swap(
    studio: Studio,
    people: Sequence[Sitter],
    outdir: Path,
    *,
    identity: Identity,
    config: SwapConfig,
    on_step: Sink = ignore,
) -> dict[str, Any]:
    """Put everybody on everybody else, and write `swap.json`, `swap.png` and `<source>-on-<target>.png`.

    Args:
        studio: generator, face network.
        people: at least two.
        outdir: folder for everything.
        identity: judge of identity.
        config: settings of the swap.
        on_step: hears of every step.
    """
    face_net = studio.swap_means.face_net
    codes = studio.invert(torch.cat([one.img for one in people]), method=METHOD, on_step=on_step)
    pairs: dict[str, dict[str, float]] = {}
    pictures: dict[tuple[int, int], Image] = {}

    def keep(i: int, k: int, swapped: Swap, picture: Image) -> None:
        name, pictures[i, k] = f"{people[i].name}-on-{people[k].name}", picture
        save_png(picture, outdir / f"{name}.png")
        pairs[name] = compare_swap(picture, people[i], people[k], swapped.within, identity=identity, face_net=face_net)

    everybody(studio, people, codes, keep, config=config, on_step=on_step)
    report = {
        "network": studio.network.stem,
        "weights": studio.weights(),
        "size_px": EVAL_PX,
        "identity": identity.record,
        "summary": summary(pairs),
        "pairs": pairs,
    }
    write_text(json.dumps(report, indent=1), outdir / "swap.json")
    save_png(matrix(people, pictures), outdir / "swap.png")
    return report
