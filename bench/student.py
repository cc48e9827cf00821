"""Measure translators of `mien train pix2pix` on photos of people who were kept out, against their teacher.

    python bench/student.py faces128.zip [--teacher drawn-128] [--student toon-128] [--unet pix2pix.safetensors]
        [--num 100] [--blobs 1000] [--network faces-64] [--outdir out/student]

The teacher draws a photo as `mien toonify --style drawn-128` does, by what the encoder sees; each translator draws
the photo itself. All people were kept out of every training.
  distance   of the two drawings: L1, and the perceptual distance of our face network's maps
  retrieval  the person of a drawing is the nearest, by our face network, among the photos of --num people (the crops
             that were drawn are not among them where a person has another photo)
  blobs      drawings, of --blobs photos, with a spot that neither photo nor teacher has: the difference, blurred by
             1/32 of the side, of both is above 0.8 on the scale of 2; those counted are in blobs.png, to be looked at
  speed      one face at 256 px and at the network's own side, beside the plain pix2pix U-Net in PyTorch, in the same
             run and with as many threads; medians
The U-Net is judged as it is used here (evaluation) and, as its paper has it, with the batch's statistics and dropout.
Prints a table in Markdown; pictures go to --outdir: photos, teacher, each translator.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from mien.app.artists import find_artist
from mien.app.studio import Studio
from mien.faces.resample import blur
from mien.images import grid, resize, save_png, to_pil
from mien.losses import perceptual
from mien.nets.features import FaceNet
from mien.nets.pix2pix import UnetGenerator
from mien.nets.student import Student
from mien.training.data import PictureSet, load_pictures, split_people
from mien.weights.load import load_net

BLOB, BLOB_SIGMA = 0.8, 1 / 32
BATCH, SHOWN, TIMED = 20, 8, 15
Draw = Callable[[Tensor], Tensor]


def two_of_each(people: PictureSet, num: int) -> tuple[Tensor, Tensor]:
    """Return two photos [N, 3, S, S] in [-1, 1] of each of up to `num` people who have two."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(people.labels["identity"].tolist()):
        rows.setdefault(name, []).append(i)
    chosen = [found[:2] for _, found in sorted(rows.items()) if len(found) > 1][:num]
    drawn, other = (people.pixels[[pair[k] for pair in chosen]].float() / 127.5 - 1 for k in (0, 1))
    return drawn, other


def in_batches(draw: Draw, img: Tensor) -> Tensor:
    """Draw many without gradients."""
    with torch.no_grad():
        return torch.cat([draw(some).clamp(-1, 1) for some in img.split(BATCH)])


def one_by_one(net: nn.Module) -> Draw:
    """Draw as pix2pix was published: every picture its own batch, with dropout."""

    def draw(img: Tensor) -> Tensor:
        net.train()
        drawn = torch.cat([net(one) for one in img.split(1)])
        net.eval()
        return drawn

    return draw


def retrieval(face_net: FaceNet, drawn: Tensor, gallery: Tensor) -> float:
    """Share of drawings whose nearest photo shows their person."""
    with torch.no_grad():
        ours, theirs = (torch.cat([face_net(part).identity for part in img.split(BATCH)]) for img in (drawn, gallery))
    return float(((ours @ theirs.T).argmax(1) == torch.arange(len(drawn))).float().mean())


def has_blob(drawn: Tensor, photo: Tensor, taught: Tensor) -> Tensor:
    """Say of each drawing [N] whether it has a spot that is neither the photo's nor the teacher's."""
    far = [blur(drawn - other, BLOB_SIGMA * drawn.shape[-1]).abs().amax(1) for other in (photo, taught)]
    return torch.minimum(*far).amax((1, 2)) > BLOB


def judged(face_net: FaceNet, drawn: Tensor, taught: Tensor, gallery: Tensor) -> dict[str, float]:
    """Return the numbers of one way to draw."""
    with torch.no_grad():
        parts = [
            perceptual(face_net.maps(a), face_net.maps(b))
            for a, b in zip(drawn.split(BATCH), taught.split(BATCH), strict=True)
        ]
    return {
        "L1": float((drawn - taught).abs().mean()),
        "perceptual": float(torch.cat(parts).mean()),
        "right person": retrieval(face_net, drawn, gallery),
    }


def milliseconds(net: nn.Module, side_px: int) -> float:
    """Return the median time of one face."""
    img, times = torch.randn(1, 3, side_px, side_px), []
    with torch.inference_mode():
        for _ in range(TIMED + 2):
            begin = time.perf_counter()
            net(img)
            times.append(1000 * (time.perf_counter() - begin))
    return median(times[2:])


def speeds(student: Student) -> list[str]:
    """Return lines on the speed of the student and of the plain U-Net of the same side."""
    sides = sorted({student.img_resolution, 256})
    lines = [
        "",
        "| one face, ms | " + " | ".join(f"{side} px" for side in sides) + " |",
        "|---" * (len(sides) + 1) + "|",
    ]
    unets = {side: UnetGenerator(num_downs=min(8, side.bit_length() - 1)).eval() for side in sides}
    times = {side: (milliseconds(student, side), milliseconds(unets[side], side)) for side in sides}
    for i, name in enumerate(("student", "pix2pix's U-Net")):
        lines.append(f"| {name} | " + " | ".join(f"{times[side][i]:.1f}" for side in sides) + " |")
    lines.append("| times as fast | " + " | ".join(f"{times[side][1] / times[side][0]:.1f}" for side in sides) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", default="drawn-128")
    parser.add_argument("--student", default="toon-128")
    parser.add_argument("--unet")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--network", default="faces-64")
    parser.add_argument("--blobs", type=int, default=1000)
    parser.add_argument("--outdir", type=Path, default=Path("out/student"))
    parser.add_argument("--cache", type=Path, default=Path("out/cache"))
    args = parser.parse_args()
    studio, student = Studio(args.network, device="cpu"), load_net(args.student, Student)
    artist, face_net = find_artist(studio, args.teacher), studio.face_net
    assert face_net is not None
    side = student.img_resolution
    _, held = split_people(load_pictures(args.data, size_px=128, cache=args.cache))

    def teacher(img: Tensor) -> Tensor:
        return resize(artist.draw(resize(img, artist.size_px).clamp(-1, 1)).detach(), side).clamp(-1, 1)

    photo, gallery = (resize(img, side).clamp(-1, 1) for img in two_of_each(held, args.num))
    taught = in_batches(teacher, photo)
    draws: dict[str, Draw] = {"student": student, "the photo itself": lambda img: img}
    if args.unet:
        unet = load_net(args.unet, UnetGenerator)
        draws |= {"pix2pix": unet, "pix2pix, as published": one_by_one(unet)}
    rows, tiles = {}, [photo[:SHOWN], taught[:SHOWN]]
    rows["teacher"] = judged(face_net, taught, taught, gallery)
    for name, draw in draws.items():
        torch.manual_seed(0)
        drawn = in_batches(draw, photo)
        rows[name] = judged(face_net, drawn, taught, gallery)
        tiles.append(drawn[:SHOWN])
    many = resize(held.pixels[: args.blobs].float() / 127.5 - 1, side).clamp(-1, 1)
    many_taught, spotted = in_batches(teacher, many), []
    for name in draws.keys() - {"pix2pix, as published"}:
        drawn = in_batches(draws[name], many)
        rows[name][f"blobs in {len(many)}"] = float((found := has_blob(drawn, many, many_taught)).sum())
        spotted += [tile for img in (many, drawn) for tile in to_pil(img[found][:SHOWN])]
    names = list(rows["student"])
    print(f"{len(photo)} people, {side} px\n\n| | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[key]:.3g}" if key in row else "" for key in names) + " |")
    print("\n".join(speeds(student)))
    labels = ["photo", "teacher", *draws]
    pictures = [to_pil(resize(img, 128).clamp(-1, 1)) for img in tiles]
    save_png(
        grid([tile for row in pictures for tile in row], columns=SHOWN, row_labels=labels), args.outdir / "drawn.png"
    )
    if spotted:
        save_png(grid(spotted, columns=SHOWN), args.outdir / "blobs.png")
    print(f"\nPictures: {args.outdir}")


if __name__ == "__main__":
    main()
