"""Speed of generators at 256 px as ratios to the official code, measured in turns in one process.

    python bench/speed.py --official DIR      DIR: a checkout of github.com/NVlabs/stylegan2-ada-pytorch
    python bench/speed.py --network stylegan3-t --official DIR      likewise of github.com/NVlabs/stylegan3
    python bench/speed.py                     own times alone
    python bench/speed.py --openvino --no-gradient      with exports for OpenVINO (needs the extra openvino)

Random weights, constant noise, no truncation. Each round runs every variant once, one after another, so that other work
on the machine weighs on all of them; a ratio is the median over rounds of official / variant, by wall time and by
processor time of both cores (the robust one on a shared machine). Compiled variants are left out where there is no
compiler.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mien.atomic import write_text
from mien.nets import stylegan2, stylegan3
from mien.nets.compile import compile_synthesis, has_compiler
from mien.nets.precision import PRECISIONS

SIZES: dict[str, Any] = dict(z_dim=512, c_dim=0, w_dim=512, img_resolution=256, img_channels=3)
NETWORKS: dict[str, dict[str, Any]] = {
    "stylegan2": dict(mapping_kwargs={"num_layers": 8}, synthesis_kwargs={"channel_base": 16384, "channel_max": 512}),
    "stylegan3-t": dict(mapping_kwargs={"num_layers": 2}, channel_base=16384, channel_max=512),
    "stylegan3-r": dict(
        mapping_kwargs={"num_layers": 2}, channel_base=32768, channel_max=1024, conv_kernel=1, use_radial_filters=True
    ),
}
"""The official 256 px configurations."""

Work = Callable[[], Tensor]


def build(network: str) -> Any:
    """A configuration with random weights that make every part count."""
    torch.manual_seed(0)
    cls = stylegan2.Generator if network == "stylegan2" else stylegan3.Generator
    G = cls(**SIZES, **NETWORKS[network]).eval().requires_grad_(False)
    for name, p in G.synthesis.named_parameters():
        if name.endswith("noise_strength"):
            p.fill_(0.1)
        elif name.endswith("bias") and "affine" not in name:
            p.normal_(std=0.1)
    return G


def build_official(folder: Path, network: str, state: dict[str, Tensor]) -> torch.nn.Module:
    """The official network with the same weights."""
    sys.path.insert(0, str(folder))
    sys.modules.setdefault("requests", ModuleType("requests"))  # the official code imports it for downloads
    if importlib.util.find_spec("pkg_resources") is None:  # and this to compare versions; setuptools dropped it
        versions: Any = sys.modules.setdefault("pkg_resources", ModuleType("pkg_resources"))
        versions.parse_version = lambda text: [int(part) for part in re.findall(r"\d+", text)[:3]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module(
            "training.networks" if network == "stylegan2" else "training.networks_stylegan3"
        )
        official = module.Generator(**SIZES, **NETWORKS[network]).eval().requires_grad_(False)
    official.load_state_dict(state)
    return official


def with_gradient(render: Callable[[Tensor], Tensor], ws: Tensor) -> Work:
    """One step of a projection: forward, and backward to ws."""

    def work() -> Tensor:
        x = ws.detach().requires_grad_()
        (grad,) = torch.autograd.grad(render(x).square().sum(), x)
        return grad

    return work


def without_gradient(render: Callable[[Tensor], Tensor], ws: Tensor) -> Work:
    """One rendering."""

    def work() -> Tensor:
        with torch.no_grad():
            return render(ws)

    return work


def renderers(G: Any, official: Any | None) -> dict[str, Callable[[Tensor], Tensor]]:
    """Ways to turn ws into pictures; the first one is what the others are compared with."""
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    if official is not None:
        found["official"] = lambda ws: official.synthesis(ws, noise_mode="const", force_fp32=True)
    plain = {"fp32": torch.float32, "bf16": torch.bfloat16}
    for name, dtype in plain.items():
        found[name] = lambda ws, dtype=dtype: G.synthesis(ws, noise_mode="const", dtype=dtype)
    if has_compiler() and isinstance(
        G, stylegan2.Generator
    ):  # StyleGAN3's time is in products that are compiled already
        compiled = compile_synthesis(G.synthesis)
        for name, dtype in plain.items():
            found[f"{name} compiled"] = lambda ws, dtype=dtype: compiled(ws, noise_mode="const", dtype=dtype)
    return found


def exported(G: Any, batch: int, threads: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Exports for OpenVINO in both precisions; they stay in memory when their files are gone."""
    from mien.weights.engine import ExportedGenerator
    from mien.weights.export import export_generator

    found = {}
    with tempfile.TemporaryDirectory() as place:
        for precision in PRECISIONS:
            folder = Path(place) / precision
            export_generator(G, folder, precision=precision, batch=batch)
            found[f"{precision} openvino"] = ExportedGenerator(folder, threads=threads).synthesis
    return found


@dataclass
class Timed:
    """Seconds of every round, and what the last one gave."""

    wall: list[float] = field(default_factory=list)
    core: list[float] = field(default_factory=list)
    result: Tensor = field(default_factory=lambda: torch.empty(0))

    def add(self, work: Work) -> None:
        wall, core = time.perf_counter(), time.process_time()
        self.result = work().float()
        self.core.append(time.process_time() - core)
        self.wall.append(time.perf_counter() - wall)


def measure(works: dict[str, Work], rounds: int, warmups: int) -> dict[str, Timed]:
    """Run every work in turns; return wall and processor seconds per round."""
    for work in works.values():
        for _ in range(warmups):  # compile, fill caches
            work()
    times = {name: Timed() for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].add(work)
    return times


def report(title: str, works: dict[str, Work], rounds: int, warmups: int) -> list[str]:
    """Measure and write one table; errors are against the first variant's result."""
    times = measure(works, rounds, warmups)
    first = next(iter(times.values()))
    columns = [title, "wall ms", "core ms", "ratio wall", "ratio core", "max error", "rms error / std"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, timed in times.items():
        error = timed.result - first.result
        wall, core = (
            statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
            for theirs, ours in ((first.wall, timed.wall), (first.core, timed.core))
        )
        rms = (error.square().mean().sqrt() / first.result.std()).item()
        lines.append(
            f"| {name} | {1000 * statistics.median(timed.wall):.0f} | {1000 * statistics.median(timed.core):.0f} "
            f"| {wall:.2f} | {core:.2f} | {error.abs().max():.1e} | {rms:.1e} |"
        )
        print(lines[-1], file=sys.stderr)
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="stylegan2")
    parser.add_argument("--official", type=Path, help="checkout of the official code")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmups", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="comma-separated names of variants")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--openvino", action="store_true", help="time exports, too (StyleGAN2)")
    parser.add_argument("--gradient", action=argparse.BooleanOptionalAction, default=True, help="time that, too")
    parser.add_argument("--out", type=Path, help="file for the tables, markdown")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    G = build(args.network)
    official = build_official(args.official, args.network, G.state_dict()) if args.official else None
    ways = renderers(G, official)
    if args.only:
        wanted = args.only.split(",")
        ways = {name: render for name, render in ways.items() if name in wanted}
    lines = []
    z = torch.randn(8, 512, generator=torch.Generator().manual_seed(1))
    ws = G.mapping(z)
    for batch in map(int, args.batches.split(",")):
        some = {**ways, **(exported(G, batch, args.threads) if args.openvino else {})}
        works = {name: without_gradient(render, ws[:batch]) for name, render in some.items()}
        lines += report(f"render, batch {batch}", works, args.rounds, args.warmups)
    if args.gradient:
        lines += report(
            "forward + backward to ws",
            {n: with_gradient(r, ws[:1]) for n, r in ways.items()},
            args.rounds,
            args.warmups,
        )
    text = "\n".join(lines)
    print(text)
    if args.out:
        write_text(text, args.out)


if __name__ == "__main__":
    main()
