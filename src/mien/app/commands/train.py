"""`mien train`: each command reads settings, calls one training function, and saves its network with its recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from mien.app.options import Device, Network, PresetPrecision, PresetSeed, Track
from mien.app.settings import DEFAULT_NETWORK, DETECTOR, FACE_NET
from mien.app.terminal.items import check_out
from mien.app.terminal.screen import Bars
from mien.errors import InputError
from mien.report import Sink, Step

if TYPE_CHECKING:
    from mien.nets.features import FaceNet
    from mien.training.data import PictureSet
    from mien.training.gan import Beginning

__all__ = ["app", "configured"]

app = typer.Typer(no_args_is_help=True, help="Train the networks that mien ships, or your own.")

Config = TypeVar("Config")
Data = Annotated[Path, typer.Option("--data", help="Zip or folder of FFHQ-aligned faces, with a .csv beside it.")]
RunDir = Annotated[Path, typer.Option("--run-dir", help="Folder of the run; the same one goes on with it.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A setting, say num_steps=500.", metavar="NAME=X")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the settings and stop.")]
OutFile = Annotated[Path | None, typer.Option("--out", help="Weights to write; default: in the run's folder.")]


def _finite(text: str) -> float:
    """Read a number that is neither infinite nor none at all."""
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


READERS: Mapping[Any, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: _finite,
    str: str,
    tuple[int, ...]: lambda text: tuple(int(part) for part in text.split(",")),
}


def configured(kind: type[Config], texts: list[str] | None, *, preset: Config | None = None) -> Config:
    """Make a settings object from a preset (or its defaults) and what `--set` was given.

    Raises:
        InputError: an unknown name, or a value of the wrong kind.
    """
    hints = get_type_hints(kind)
    known = {f.name: f.default for f in fields(kind) if hints[f.name] in READERS}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for text in texts or []:
        name, _, value = text.partition("=")
        if name not in known:
            raise InputError(f"no setting named {name!r}", hint=f"known: {', '.join(known)}")
        try:
            values[name] = READERS[hints[name]](value)
        except (ValueError, KeyError):
            raise InputError(f"{text!r} does not fit {name}", hint=f"its default is {name}={known[name]}") from None
    return replace(preset, **values) if preset is not None else kind(**values)  # type: ignore[type-var]


def _settings(
    kind: type[Config],
    texts: list[str] | None,
    *,
    seed: int | None,
    precision: str | None = None,
    preset: Config | None = None,
) -> Config:
    """Settings from `--set`, over which `--seed` and `--precision` go where they were given."""
    given = {name: value for name, value in (("seed", seed), ("precision", precision)) if value is not None}
    return configured(kind, [*(texts or []), *(f"{name}={value}" for name, value in given.items())], preset=preset)


def _shown(config: Any, dry_run: bool) -> None:
    if dry_run:
        typer.echo(json.dumps(asdict(config), indent=1))
        raise typer.Exit


def _pictures(data: Path, size_px: int, run_dir: Path) -> tuple[PictureSet, PictureSet]:
    from mien.training.data import load_pictures, split_people

    return split_people(load_pictures(data, size_px=size_px, cache=run_dir.parent / "cache"))


def _face_net() -> FaceNet | None:
    from mien.nets.features import FaceNet
    from mien.weights.load import bundled_names, load_net

    return load_net(FACE_NET, FaceNet) if FACE_NET in bundled_names() else None


def _out(out: Path | None, run_dir: Path, name: str) -> Path:
    path = out or run_dir / f"{name}.safetensors"
    check_out(path, suffix=".safetensors")
    return path


def _facts(config: Any, run_dir: Path, sources: Sequence[Path], **facts: Any) -> dict[str, Any]:
    """What the header of a network that a run made is to say."""
    from mien.training.provenance import provenance
    from mien.training.resume import read_options

    options = read_options(run_dir)
    run = {"data_sha256": options["data"], "pictures": options["pictures"]}
    return provenance(config, sources, **run, **facts)


def _beginning(network: str | None) -> Beginning | None:
    """Load a generator and what was trained with it."""
    from mien.app.capabilities.networks import companion
    from mien.nets.discriminator import Discriminator
    from mien.nets.encoder import Encoder, looking
    from mien.nets.stylegan2 import Generator
    from mien.training.gan import Beginning
    from mien.weights.load import find_weights, load_net

    if network is None:
        return None
    path = find_weights(network)
    encoder = companion(path, "encoder")
    return Beginning(
        load_net(path, Generator),
        load_net(companion(path, "discriminator"), Discriminator),
        looking(load_net(encoder, Encoder), 1) if encoder.is_file() else None,
    )


@contextmanager
def _told(
    places: list[str] | None, name: str, run_dir: Path, config: Any, sources: Sequence[Path], out: Path
) -> Iterator[Sink]:
    """Yield the sink of a training: bars, and the places to track it in, which get the results at its end."""
    from mien.track import About, follow, tee
    from mien.training.provenance import commit
    from mien.training.resume import OPTIONS

    facts = {"commit": commit(), **_digests(sources)} if places else {}
    with Bars() as bars, follow(places or [], About(name, run_dir, asdict(config), facts)) as tell:
        yield tee(bars, tell)
        results = {"weights": out, "card": out.with_suffix(".md"), "settings": run_dir / OPTIONS}
        tell(Step(name, 1, 1, files={kind: path for kind, path in results.items() if path.is_file()}))


def _digests(sources: Sequence[Path]) -> dict[str, str]:
    from mien.training.data import source_digest

    return {f"data.{path.name}": source_digest(path) for path in sources if path.exists()}


@app.command()
def gan(
    data: Data,
    run_dir: RunDir,
    preset: Annotated[
        str, typer.Option("--preset", help="Settings to begin from, by the network's name.")
    ] = DEFAULT_NETWORK,
    begin: Annotated[
        str | None,
        typer.Option("--from", help="Generator to begin with, beside it its discriminator; a smaller one grows."),
    ] = None,
    settings: Settings = None,
    out: OutFile = None,
    device: Device = "auto",
    precision: PresetPrecision = None,
    seed: PresetSeed = None,
    track: Track = None,
    dry_run: DryRun = False,
) -> None:
    """Train a generator (StyleGAN2 with ADA).

    Example: mien train gan --data faces128.zip --run-dir runs/gan --preset faces-128 --set kimg=1000
    """
    from mien.app.capabilities.networks import pick_device
    from mien.training.gan import train_on_people
    from mien.training.gan_step import PRESETS, GanConfig
    from mien.training.ranks import own_device
    from mien.weights.load import save_net

    if preset not in PRESETS:
        raise InputError(f"no preset named {preset!r}", hint=f"known: {', '.join(PRESETS)}")
    config = _settings(GanConfig, settings, preset=PRESETS[preset], precision=precision, seed=seed)
    _shown(config, dry_run)
    path = _out(out, run_dir, "generator")
    people, held_out = _pictures(data, config.img_resolution, run_dir)
    with _told(track, "gan", run_dir, config, [data], path) as tell:
        G = train_on_people(
            config,
            people,
            held_out,
            run_dir,
            tell,
            face_net=_face_net(),
            start=_beginning(begin),
            device=own_device(str(pick_device(device))),
        )
        save_net(G, path, provenance=_facts(config, run_dir, [data], kimg=config.kimg), use_half=True)
    typer.echo(path)


@app.command()
def adapt(
    data: Annotated[Path, typer.Option("--data", help="Zip or folder of drawn faces, FFHQ-aligned; 100 to 1,000.")],
    run_dir: Annotated[
        Path, typer.Option("--run-dir", "--outdir", help="Folder of the run; the same one goes on with it.")
    ],
    begin: Annotated[
        str, typer.Option("--from", help="Generator to begin with; its discriminator is found in or beside its file.")
    ] = DEFAULT_NETWORK,
    where: Annotated[
        str | None, typer.Option("--where", help="Which pictures, by a column of the table: style=comic,arcane.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="Settings to begin from.")] = "drawing",
    difference: Annotated[
        str | None, typer.Option("--difference", help="Save as a difference to --from: int8, fp16 or exact.")
    ] = None,
    settings: Settings = None,
    out: OutFile = None,
    device: Device = "auto",
    precision: PresetPrecision = None,
    seed: PresetSeed = None,
    track: Track = None,
    dry_run: DryRun = False,
) -> None:
    """Teach a generator of faces to draw, from a small set: ADA, frozen mapping, snapshots, warning signs.

    Example: mien train adapt --data toons.zip --from faces-64 --outdir runs/toon
    """
    from mien.app.capabilities.networks import companion, pick_device
    from mien.training.adapt import ADAPT_PRESETS, AdaptConfig, adapt, find_discriminator
    from mien.training.data import load_pictures
    from mien.weights.delta import check_coding, save_difference
    from mien.weights.load import find_weights, load_generator, save_generator, weights_digest

    if preset not in ADAPT_PRESETS:
        raise InputError(f"no preset named {preset!r}", hint=f"known: {', '.join(ADAPT_PRESETS)}")
    chosen = [*(settings or []), *([] if where is None else [f"where={where}"])]
    config = _settings(AdaptConfig, chosen, preset=ADAPT_PRESETS[preset], precision=precision, seed=seed)
    _shown(config, dry_run)
    path = _out(out, run_dir, "generator")
    network = find_weights(begin)
    if difference is not None:
        check_coding(difference, network)
    G = load_generator(network)
    drawings = load_pictures(data, size_px=G.img_resolution, cache=run_dir.parent / "cache")
    D = find_discriminator(network, companion(network, "discriminator"))
    with _told(track, "adapt", run_dir, config, [data, network], path) as tell:
        found = adapt(config, G, drawings, run_dir, tell, D=D, face_net=_face_net(), device=pick_device(device))
        known = {"base": network.stem, "network": weights_digest(network), "score": dict(found.score)}
        facts = _facts(config, run_dir, [data, network], kimg=found.score["kimg"], **known)
        if difference is None:
            save_generator(found.G, path, provenance=facts, use_half=True)
        else:
            save_difference(found.G, path, base=G, base_name=network.stem, coding=difference, provenance=facts)
    typer.echo(path)


@app.command()
def encoder(
    data: Data,
    run_dir: RunDir,
    network: Network = DEFAULT_NETWORK,
    settings: Settings = None,
    out: OutFile = None,
    device: Device = "auto",
    precision: PresetPrecision = None,
    seed: PresetSeed = None,
    track: Track = None,
    dry_run: DryRun = False,
) -> None:
    """Train an encoder for a generator; lay it beside the generator as encoder-<its name>.safetensors to use it.

    Example: mien train encoder --data faces128.zip --run-dir runs/encoder --network my.safetensors
    """
    from mien.app.studio import Studio
    from mien.training.encoder import EncoderConfig, train_encoder
    from mien.weights.load import save_net

    config = _settings(EncoderConfig, settings, precision=precision, seed=seed)
    _shown(config, dry_run)
    path = _out(out, run_dir, "encoder")
    studio = Studio(network, device=device)
    people, _ = _pictures(data, studio.G.img_resolution, run_dir)
    face_net = _face_net()
    with _told(track, "encoder", run_dir, config, [data, studio.network], path) as tell:
        E = train_encoder(
            config, studio.G, people, run_dir, tell, face_model=None if face_net is None else face_net.to(studio.device)
        )
        facts = _facts(config, run_dir, [data, studio.network], steps=config.num_steps, network=studio.digest)
        save_net(E, path, provenance=facts, use_half=True)
    typer.echo(path)


@app.command()
def pix2pix(
    pairs: Annotated[Path, typer.Option("--pairs", help="Folder that `mien pairs make` wrote.")],
    run_dir: Annotated[
        Path, typer.Option("--run-dir", "--outdir", help="Folder of the run; the same one goes on with it.")
    ],
    preset: Annotated[
        str, typer.Option("--preset", help="student (ours, quick) or pix2pix (as published).")
    ] = "student",
    settings: Settings = None,
    out: OutFile = None,
    device: Device = "auto",
    precision: PresetPrecision = None,
    seed: PresetSeed = None,
    track: Track = None,
    dry_run: DryRun = False,
) -> None:
    """Teach one network to draw people at once, from pairs of people and drawings; `mien toonify` uses it.

    Example: mien train pix2pix --pairs pairs --preset student --outdir runs/toon
    """
    from mien.app.capabilities.networks import pick_device
    from mien.training.distill import DISTILL_PRESETS, DistillConfig, distill
    from mien.training.pair_set import load_pairs
    from mien.weights.load import save_net

    if preset not in DISTILL_PRESETS:
        raise InputError(f"no preset named {preset!r}", hint=f"known: {', '.join(DISTILL_PRESETS)}")
    config = _settings(DistillConfig, settings, preset=DISTILL_PRESETS[preset], precision=precision, seed=seed)
    _shown(config, dry_run)
    path = _out(out, run_dir, preset)
    shown = load_pairs(pairs)
    held = load_pairs(pairs, "val") if any(pairs.glob("val-*.tar")) else None
    place, face_net = pick_device(device), _face_net()
    with _told(track, "distill", run_dir, config, [], path) as tell:
        net = distill(config, shown, run_dir, tell, held=held, face_net=face_net, device=place)
        facts = _facts(config, run_dir, [], kimg=config.kimg, img_resolution=shown.side_px, made_by=shown.made_by)
        save_net(net, path, provenance=facts, use_half=True)
    typer.echo(path)


@app.command()
def directions(
    run_dir: RunDir,
    network: Network = DEFAULT_NETWORK,
    data: Annotated[
        Path | None, typer.Option("--data", help="Faces whose codes, by the encoder, take the place of samples.")
    ] = None,
    settings: Settings = None,
    out: OutFile = None,
    device: Device = "auto",
    seed: PresetSeed = None,
    track: Track = None,
    dry_run: DryRun = False,
) -> None:
    """Find smile, age, yaw and more in a generator; beside it, as directions-<its name>.safetensors, they are used.

    Example: mien train directions --run-dir runs/directions --network my.safetensors
    """
    from mien.app.capabilities.networks import companion
    from mien.app.studio import Studio
    from mien.edits.attributes import SHIPPED, face_scorer
    from mien.edits.directions import save_directions
    from mien.edits.find import FindConfig, find_directions
    from mien.training.provenance import provenance

    config = _settings(FindConfig, settings, seed=seed)
    _shown(config, dry_run)
    path = _out(out, run_dir, "directions")
    studio = Studio(network, device=device)
    assert studio.face_net is not None
    codes, sources = None, [studio.network]
    if data is not None:
        people, _ = _pictures(data, studio.G.img_resolution, run_dir)
        codes = studio.encode_pixels(people.pixels[: config.num_samples])
        sources = [data, studio.network, companion(studio.network, "encoder")]
    scorer = face_scorer(studio.face_net)
    with _told(track, "directions", run_dir, config, sources, path) as tell:
        found = find_directions(
            studio.G, scorer, SHIPPED, codes=codes, config=config, network=studio.digest, on_step=tell
        )
        save_directions(found.with_provenance(provenance(config, sources)), path)
    typer.echo(path)


@app.command()
def faces(
    data: Data,
    ages: Annotated[Path, typer.Option("--ages", help="Zip of tight face crops with a .csv of ages and genders.")],
    run_dir: RunDir,
    settings: Settings = None,
    out: OutFile = None,
    device: Device = "auto",
    precision: PresetPrecision = None,
    seed: PresetSeed = None,
    track: Track = None,
    dry_run: DryRun = False,
) -> None:
    """Train the face network: identity, pose, expression, age, gender.

    Example: mien train faces --data faces128.zip --ages ages128.zip --run-dir runs/faces
    """
    from mien.app.capabilities.networks import pick_device
    from mien.training.faces import FaceTrainConfig, train_faces
    from mien.weights.load import save_net

    config = _settings(FaceTrainConfig, settings, precision=precision, seed=seed)
    _shown(config, dry_run)
    path = _out(out, run_dir, FACE_NET)
    with _told(track, "faces", run_dir, config, [data, ages], path) as tell:
        net = train_faces(
            config,
            faces=data,
            ages=ages,
            run_dir=run_dir,
            cache=run_dir.parent / "cache",
            device=pick_device(device),
            on_step=tell,
        )
        save_net(net, path, provenance=_facts(config, run_dir, [data, ages], steps=config.num_steps), use_half=True)
    typer.echo(path)


@app.command()
def detector(
    data: Annotated[Path, typer.Option("--data", help="Zip of whole photos with a .csv of boxes and points.")],
    run_dir: RunDir,
    settings: Settings = None,
    out: OutFile = None,
    device: Device = "auto",
    precision: PresetPrecision = None,
    seed: PresetSeed = None,
    track: Track = None,
    dry_run: DryRun = False,
) -> None:
    """Train the face detector.

    Example: mien train detector --data scenes250.zip --run-dir runs/detector
    """
    from mien.app.capabilities.networks import pick_device
    from mien.training.detector import DetectorConfig, train
    from mien.weights.load import save_net

    config = _settings(DetectorConfig, settings, precision=precision, seed=seed)
    _shown(config, dry_run)
    path = _out(out, run_dir, DETECTOR)
    with _told(track, "detector", run_dir, config, [data], path) as tell:
        net = train(config, data, run_dir, tell, device=pick_device(device))
        facts = _facts(config, run_dir, [data], steps=[config.num_steps, config.num_refiner_steps])
        save_net(net, path, provenance=facts, use_half=True)
    typer.echo(path)
