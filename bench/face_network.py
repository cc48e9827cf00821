"""Measure the face network on the people who were kept out of its training, and how much work it is.

    python bench/face_network.py DATA [--weights face-features] [--json]

DATA holds faces128.zip and ages128.zip with their tables.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn

from mien.nets.features import FaceNet
from mien.training.faces import evaluate
from mien.weights.load import load_net


def multiply_adds(net: FaceNet, side_px: int) -> int:
    """Count the multiply-adds of all convolutions and linear layers for one picture."""
    total = 0

    def count(layer: nn.Module, _: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal total
        weight = layer.weight
        total += weight.numel() * out[0, 0].numel() if isinstance(layer, nn.Conv2d) else weight.numel()

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    net(torch.zeros(1, 3, side_px, side_px))
    for handle in handles:
        handle.remove()
    return total


def milliseconds(net: FaceNet, *, num: int, side_px: int, use_gradient: bool, num_rounds: int = 10) -> float:
    """Median time of one picture in a batch of `num`, of processor time of all threads together."""
    img = torch.zeros(num, 3, side_px, side_px)
    times = []
    for _ in range(num_rounds):
        start = time.process_time()
        if use_gradient:
            net(img.requires_grad_()).identity.sum().backward()
        else:
            with torch.no_grad():
                net(img)
        times.append(time.process_time() - start)
    return 1000 * sorted(times)[num_rounds // 2] / num


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="face-features")
    parser.add_argument("--json", action="store_true", help="numbers instead of a table")
    args = parser.parse_args()
    net = load_net(args.weights, FaceNet)
    columns = {
        f"{side_px} px": evaluate(
            net, faces=args.data / "faces128.zip", ages=args.data / "ages128.zip", side_px=side_px
        )
        for side_px in (128, 64)
    }
    work = {
        "multiply_adds_millions": multiply_adds(net, 64) / 1e6,
        "forward_ms": milliseconds(net, num=8, side_px=64, use_gradient=False),
        "forward_backward_ms": milliseconds(net, num=8, side_px=64, use_gradient=True),
    }
    if args.json:
        print(json.dumps({**columns, "work": work}, indent=1))
        return
    print("| held-out people |", " | ".join(columns), "|\n|---|" + "---|" * len(columns))
    for name in columns["128 px"]:
        print(f"| {name} |", " | ".join(f"{column[name]:.3f}" for column in columns.values()), "|")
    print(*(f"{name}: {value:.1f}" for name, value in work.items()), sep="\n")


if __name__ == "__main__":
    main()
