"""The command that blends generators, or draws what blends there are to choose from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.app.options import Class, Commercial, Device, Psi
from mien.app.settings import FACE_NET
from mien.app.terminal.items import check_network, check_out
from mien.app.terminal.screen import Bars, note
from mien.app.terminal.text import parse_seeds
from mien.errors import InputError

if TYPE_CHECKING:
    from mien.edits.schedule import Schedule
    from mien.edits.sweep import SweepConfig, Trial
    from mien.nets.generator import Generator

__all__ = ["app", "short_names", "strictest"]

SUFFIX = ".safetensors"

app = typer.Typer()


def _numbers(text: str, what: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise InputError(f"{text!r} are no {what}", hint="write for example 8,16,32") from err


def strictest(networks: Sequence[str]) -> str:
    """Return the terms of what is made of several networks: those of the strictest, of all that are as strict."""
    from mien.weights.licences import licence_of

    found = [licence_of(network) for network in networks]
    order = ("no", "unknown", "yes")
    strict = min((licence.commercial for licence in found), key=order.index)
    return "; ".join(dict.fromkeys(licence.name for licence in found if licence.commercial == strict))


def short_names(networks: Sequence[str]) -> list[str]:
    """Return names that tell networks apart: stems of files, with folders where stems do not.

    >>> short_names(["faces-64", "runs/008/toon.safetensors"])
    ['faces-64', 'toon']
    >>> short_names(["runs/008/toon.safetensors", "runs/016/toon.safetensors"])
    ['008/toon', '016/toon']
    """
    paths = [Path(name.removesuffix(SUFFIX)) for name in networks]
    for names in ([path.name for path in paths], ["/".join(path.parts[-2:]) for path in paths]):
        if len(set(names)) == len(names):
            return names
    return list(networks)


def _load(networks: Sequence[str], device: str) -> dict[str, Generator]:
    from torch import nn

    from mien.app.capabilities.networks import pick_device
    from mien.weights.load import load_generator

    place = pick_device(device)
    generators = [load_generator(name) for name in networks]
    for G in generators:
        assert isinstance(G, nn.Module)
        G.to(place)
    return dict(zip(short_names(networks), generators, strict=True))


def _digests(networks: Sequence[str]) -> dict[str, str]:
    from mien.weights.load import weights_digest

    return dict(zip(short_names(networks), map(weights_digest, networks), strict=True))


def _save_blend(
    networks: Sequence[str], schedules: Sequence[Schedule], out: Path, *, device: str, min_cosine: float
) -> None:
    from mien.edits.blend import blend, relatedness
    from mien.weights.load import save_generator

    base, *others = _load(networks, device).values()
    blended = blend(base, list(zip(others, schedules, strict=True)), min_cosine=min_cosine)
    names = short_names(networks)
    provenance = {
        "licence": strictest(networks),
        "made_by": "mien blend-models",
        "made_from": _digests(networks),
        "base": names[0],
        "schedules": {name: str(schedule) for name, schedule in zip(names[1:], schedules, strict=True)},
        "cosines": {name: relatedness(base, G).cosine for name, G in zip(names[1:], others, strict=True)},
    }
    save_generator(blended, out, provenance=provenance)


def _record(trial: Trial) -> dict[str, Any]:
    schedule = str(trial.schedule)
    return {"network": trial.network, "schedule": schedule, "identity": trial.identity, "style": trial.style}


def _save_sweep(networks: Sequence[str], config: SweepConfig, out: Path, *, device: str, min_cosine: float) -> None:
    from mien.app.figures.blends import sweep_figure
    from mien.atomic import write_text
    from mien.edits.sweep import sweep
    from mien.images import save_png
    from mien.nets.features import FaceNet
    from mien.nets.precision import exact_float32
    from mien.weights.load import load_net

    (name, base), *others = _load(networks, device).items()
    face_net = load_net(FACE_NET, FaceNet).to(base.w_avg.device)
    with Bars() as bars, exact_float32():
        found = sweep(base, dict(others), face_net, config, min_cosine=min_cosine, on_step=bars)
    report: dict[str, Any] = {
        "base": name,
        "weights": _digests([*networks, FACE_NET]),
        "config": asdict(config),
        "others": [_record(trial) for trial in found.others],
        "blends": [_record(trial) | {"is_on_front": trial.is_on_front} for trial in found.trials],
    }
    save_png(sweep_figure(found, name), out)
    write_text(json.dumps(report, indent=1) + "\n", out.with_suffix(".json"))
    for trial in found.trials:
        if trial.is_on_front:
            note(
                f'{trial.network}: --schedule "{trial.schedule}" identity {trial.identity:.2f}, style {trial.style:.2f}'
            )


@app.command("blend-models")
def blend_models(
    networks: Annotated[
        list[str], typer.Argument(help="The base, then those to blend into it.", metavar="A B...", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Generator to write, .safetensors; of a sweep, its PNG.")],
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            "--schedule",
            help='Once for each B: above:32, above:32:1, below:16, 0.5x9,1, "above:8; affine=0" or a name.',
        ),
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Draw and score all of the swaps and widths instead.")] = False,
    swaps: Annotated[
        str | None,
        typer.Option("--swaps", help="Resolutions of a sweep, say 8,16,32; default: every octave from 8 px."),
    ] = None,
    widths: Annotated[
        str, typer.Option("--widths", help="Widths of a sweep, in octaves; 0 is a hard swap.")
    ] = "0,0.5,1",
    below: Annotated[bool, typer.Option("--below", help="Sweep over B's layers below the swap, not above.")] = False,
    seeds: Annotated[str, typer.Option("--seeds", help="People of a sweep.")] = "1-12",
    psi: Psi = 0.7,
    class_idx: Class = None,
    min_cosine: Annotated[
        float, typer.Option("--min-cosine", min=-1, max=1, help="Refuse generators less related than that.")
    ] = 0.2,
    commercial: Commercial = False,
    device: Device = "auto",
) -> None:
    """Blend generators that were fine-tuned from one another, layer by layer; or draw a sweep of blends to choose from.

    A schedule says how much of B each layer takes, from 0 to 1. The mapping stays A's: a seed is the same person.

    Example: mien blend-models faces-64 toon.safetensors --schedule above:16:0.5 --out blended.safetensors
    """
    from mien.edits.schedule import parse_schedule

    if len(networks) < 2 or len(set(networks)) < len(networks):
        raise InputError("a blend needs two networks at least, each once", hint="give A, then B")
    texts = schedule or []
    if not sweep and len(texts) != len(networks) - 1:
        hint = "give --schedule once for every network but the first, or --sweep"
        raise InputError(f"{len(texts)} schedules for {len(networks) - 1} networks to blend in", hint=hint)
    if sweep and texts:
        raise InputError("a sweep makes its own schedules", hint="give --swaps and --widths, or leave --sweep out")
    schedules = [parse_schedule(text) for text in texts]
    check_out(out, map(Path, networks), suffix=".png" if sweep else SUFFIX)
    for network in networks:
        check_network(network, commercial=commercial)
    if sweep:
        from mien.edits.sweep import SweepConfig

        config = SweepConfig(
            swaps_px=None if swaps is None else _numbers(swaps, "resolutions"),
            widths=_numbers(widths, "widths"),
            is_below=below,
            seeds=tuple(parse_seeds(seeds)),
            truncation_psi=psi,
            class_idx=class_idx,
        )
        _save_sweep(networks, config, out, device=device, min_cosine=min_cosine)
    else:
        _save_blend(networks, schedules, out, device=device, min_cosine=min_cosine)
    typer.echo(out)
