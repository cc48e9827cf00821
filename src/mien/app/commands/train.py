"""`mien train`: each command reads settings, calls one training function, and saves its network with its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.commands.runs import Run, Training, preset_of
from mien.app.options import Network
from mien.app.settings import DEFAULT_NETWORK, DETECTOR, FACE_NET
from mien.app.terminal.spread import spread

if TYPE_CHECKING:
    from mien.nets.features import FaceNet
    from mien.training.gan import Beginning

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Train the networks that mien ships, or your own.")

Data = Annotated[Path, typer.Option("--data", help="Zip or folder of FFHQ-aligned faces, with a .csv beside it.")]


def _face_net() -> FaceNet | None:
    from mien.nets.features import FaceNet
    from mien.weights.load import bundled_names, load_net

    return load_net(FACE_NET, FaceNet) if FACE_NET in bundled_names() else None


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


@app.command()
@spread
def gan(
    data: Data,
    run: Training,
    preset: Annotated[
        str, typer.Option("--preset", help="Settings to begin from, by the network's name.")
    ] = DEFAULT_NETWORK,
    begin: Annotated[
        str | None,
        typer.Option("--from", help="Generator to begin with, beside it its discriminator; a smaller one grows."),
    ] = None,
) -> None:
    """Train a generator (StyleGAN2 with ADA).

    Example: mien train gan --data faces128.zip --run-dir runs/gan --preset faces-128 --set kimg=1000
    """
    from mien.app.capabilities.networks import pick_device
    from mien.training.gan import train_on_people
    from mien.training.gan_step import PRESETS, GanConfig
    from mien.training.ranks import own_device

    plan = run.plan("gan", GanConfig, result="generator", preset=preset_of(PRESETS, preset))
    people, held_out = run.people(data, plan.config.img_resolution)
    with plan.following(data) as made:
        G = train_on_people(
            plan.config,
            people,
            held_out,
            run.run_dir,
            made.tell,
            face_net=_face_net(),
            start=_beginning(begin),
            device=own_device(str(pick_device(run.device))),
        )
        made.save(G, kimg=plan.config.kimg)


@app.command()
@spread
def adapt(
    data: Annotated[Path, typer.Option("--data", help="Zip or folder of drawn faces, FFHQ-aligned; 100 to 1,000.")],
    run: Training,
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
    size: Annotated[
        int | None, typer.Option("--size", min=4, help="Side of the drawings, px; a smaller generator grows to it.")
    ] = None,
) -> None:
    """Teach a generator of faces to draw, from a small set: ADA, frozen mapping, snapshots, warning signs.

    Beside the weights lies their discriminator, for whoever goes on from them.

    Example: mien train adapt --data toons.zip --from faces-64 --outdir runs/toon
    """
    from mien.app.capabilities.networks import companion, pick_device
    from mien.training.adapt import ADAPT_PRESETS, AdaptConfig, adapt, find_discriminator
    from mien.training.data import load_pictures
    from mien.weights.delta import check_coding, save_difference
    from mien.weights.load import find_weights, load_generator, save_generator, save_net, weights_digest

    more = [] if where is None else [f"where={where}"]
    plan = run.plan("adapt", AdaptConfig, result="generator", preset=preset_of(ADAPT_PRESETS, preset), more=more)
    network = find_weights(begin)
    if difference is not None:
        check_coding(difference, network)
    G = load_generator(network)
    drawings = load_pictures(data, size_px=size or G.img_resolution, cache=run.cache)
    D = find_discriminator(network, companion(network, "discriminator"))
    place, face_net = pick_device(run.device), _face_net()
    with plan.following(data, network) as made:
        found = adapt(plan.config, G, drawings, run.run_dir, made.tell, D=D, face_net=face_net, device=place)
        known = {"base": network.stem, "network": weights_digest(network), "score": dict(found.score)}
        facts = made.facts(kimg=found.score["kimg"], **known)
        if difference is None:
            save_generator(found.G, plan.path, provenance=facts, use_half=True)
        else:
            save_difference(found.G, plan.path, base=G, base_name=network.stem, coding=difference, provenance=facts)
        beside = {"network": weights_digest(plan.path)}  # for whoever goes on from it
        save_net(found.D, companion(plan.path, "discriminator"), provenance=beside, use_half=True)


@app.command()
@spread
def encoder(data: Data, run: Training, network: Network = DEFAULT_NETWORK) -> None:
    """Train an encoder for a generator; lay it beside the generator as encoder-<its name>.safetensors to use it.

    Example: mien train encoder --data faces128.zip --run-dir runs/encoder --network my.safetensors
    """
    from mien.app.studio import Studio
    from mien.training.encoder import EncoderConfig, train_encoder

    plan = run.plan("encoder", EncoderConfig, result="encoder")
    studio, face_net = Studio(network, device=run.device), _face_net()
    people, _ = run.people(data, studio.G.img_resolution)
    face_model = None if face_net is None else face_net.to(studio.device)
    with plan.following(data, studio.network) as made:
        E = train_encoder(plan.config, studio.G, people, run.run_dir, made.tell, face_model=face_model)
        made.save(E, steps=plan.config.num_steps, network=studio.digest)


@app.command()
@spread
def pix2pix(
    pairs: Annotated[Path, typer.Option("--pairs", help="Folder that `mien pairs make` wrote.")],
    run: Training,
    preset: Annotated[
        str, typer.Option("--preset", help="student (ours, quick) or pix2pix (as published).")
    ] = "student",
) -> None:
    """Teach one network to draw people at once, from pairs of people and drawings; `mien toonify` uses it.

    Example: mien train pix2pix --pairs pairs --preset student --outdir runs/toon
    """
    from mien.app.capabilities.networks import pick_device
    from mien.training.distill import DISTILL_PRESETS, DistillConfig, distill
    from mien.training.pair_set import load_pairs

    plan = run.plan("distill", DistillConfig, result=preset, preset=preset_of(DISTILL_PRESETS, preset))
    shown = load_pairs(pairs)
    held = load_pairs(pairs, "val") if any(pairs.glob("val-*.tar")) else None
    place, face_net = pick_device(run.device), _face_net()
    with plan.following() as made:
        net = distill(plan.config, shown, run.run_dir, made.tell, held=held, face_net=face_net, device=place)
        made.save(net, kimg=plan.config.kimg, img_resolution=shown.side_px, made_by=shown.made_by)


@app.command()
@spread
def cartoon(
    data: Data,
    drawings: Annotated[Path, typer.Option("--drawings", help="Zip or folder of drawn faces, FFHQ-aligned.")],
    run: Training,
    where: Annotated[
        str | None, typer.Option("--where", help="Which drawings, by a column of the table: style=illustration,comic.")
    ] = None,
    size: Annotated[int, typer.Option("--size", min=32, help="Side of the faces, px.")] = 128,
) -> None:
    """Teach one network to draw people from drawings of others, without pairs; `mien toonify` uses it.

    Example: mien train cartoon --data faces128.zip --drawings toons.zip --where style=comic --outdir runs/comic
    """
    from mien.app.capabilities.networks import pick_device
    from mien.nets.features import FaceNet
    from mien.training.cartoon import CartoonConfig, cartoon
    from mien.training.data import load_pictures
    from mien.training.resume import read_options
    from mien.weights.load import load_net

    more = [] if where is None else [f"where={where}"]
    plan = run.plan("cartoon", CartoonConfig, result="student", more=more)
    people, held = run.people(data, size)
    drawn = load_pictures(drawings, size_px=size, cache=run.cache)
    face_net, place = load_net(FACE_NET, FaceNet), pick_device(run.device)
    with plan.following(data, drawings) as made:
        net = cartoon(plan.config, people, drawn, run.run_dir, made.tell, face_net=face_net, held=held, device=place)
        num_drawings = read_options(run.run_dir)["drawings"]
        made.save(net, kimg=plan.config.kimg, img_resolution=size, drawings=num_drawings)


@app.command()
@spread
def directions(
    run: Run,
    network: Network = DEFAULT_NETWORK,
    data: Annotated[
        Path | None, typer.Option("--data", help="Faces whose codes, by the encoder, take the place of samples.")
    ] = None,
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

    plan = run.plan("directions", FindConfig, result="directions")
    studio = Studio(network, device=run.device)
    assert studio.face_net is not None
    codes, sources = None, [studio.network]
    if data is not None:
        people, _ = run.people(data, studio.G.img_resolution)
        codes = studio.encode_pixels(people.pixels[: plan.config.num_samples])
        sources = [data, studio.network, companion(studio.network, "encoder")]
    scorer = face_scorer(studio.face_net)
    with plan.following(*sources) as made:
        found = find_directions(
            studio.G, scorer, SHIPPED, codes=codes, config=plan.config, network=studio.digest, on_step=made.tell
        )
        save_directions(found.with_provenance(provenance(plan.config, sources)), plan.path)


@app.command()
@spread
def faces(
    data: Data,
    ages: Annotated[Path, typer.Option("--ages", help="Zip of tight face crops with a .csv of ages and genders.")],
    run: Training,
) -> None:
    """Train the face network: identity, pose, expression, age, gender.

    Example: mien train faces --data faces128.zip --ages ages128.zip --run-dir runs/faces
    """
    from mien.app.capabilities.networks import pick_device
    from mien.training.faces import FaceTrainConfig, train_faces

    plan, device = run.plan("faces", FaceTrainConfig, result=FACE_NET), pick_device(run.device)
    with plan.following(data, ages) as made:
        net = train_faces(
            plan.config,
            faces=data,
            ages=ages,
            run_dir=run.run_dir,
            cache=run.cache,
            device=device,
            on_step=made.tell,
        )
        made.save(net, steps=plan.config.num_steps)


@app.command()
@spread
def detector(
    data: Annotated[Path, typer.Option("--data", help="Zip of whole photos with a .csv of boxes and points.")],
    run: Training,
) -> None:
    """Train the face detector.

    Example: mien train detector --data scenes250.zip --run-dir runs/detector
    """
    from mien.app.capabilities.networks import pick_device
    from mien.training.detector import DetectorConfig, train

    plan, device = run.plan("detector", DetectorConfig, result=DETECTOR), pick_device(run.device)
    with plan.following(data) as made:
        net = train(plan.config, data, run.run_dir, made.tell, device=device)
        made.save(net, steps=[plan.config.num_steps, plan.config.num_refiner_steps])
