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
  speed      one face at 256 px beside the plain pix2pix U-Net in PyTorch, in the same run, in turn, on one thread:
             medians of processor time; and what an exported file loses, int8 on faces that it was not fitted to
The U-Net is judged as it is used here (evaluation) and, as its paper has it, with the batch's statistics and dropout.
Prints a table in Markdown; pictures go to --outdir: photos, teacher, each translator.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

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
from mien.weights.engine import ExportedTranslator
from mien.weights.export_translator import export_translator
from mien.weights.load import load_net

BLOB, BLOB_SIGMA = 0.8, 1 / 32
BATCH, SHOWN, TIMED, CALIBRATED = 20, 8, 15, 64
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


def milliseconds(draws: dict[str, Draw], side_px: int) -> dict[str, float]:
    """Return the median processor time of one face for each way, all taken in turn."""
    img = torch.randn(1, 3, side_px, side_px).clamp(-1, 1)
    times: dict[str, list[float]] = {name: [] for name in draws}
    with torch.inference_mode():
        for _ in range(TIMED + 2):
            for name, draw in draws.items():
                begin = time.process_time()
                draw(img)
                times[name].append(1000 * (time.process_time() - begin))
    return {name: median(found[2:]) for name, found in times.items()}


def exported(student: Student, faces: Tensor, folder: Path) -> dict[str, ExportedTranslator]:
    """Write the student in every form that `mien export` knows, for faces of the side of `faces`."""
    known: dict[str, Any] = dict(name="student", img_resolution=faces.shape[-1], faces=faces)
    found = {}
    for form, precision in (("onnx", "fp32"), ("openvino", "bf16"), ("openvino", "int8")):
        out = folder / f"{form}-{precision}"
        export_translator(student, out, format=form, precision=precision, **known)
        found[f"student, {form} {precision}"] = ExportedTranslator(out, threads=1)
    return found


def speeds(student: Student, photos: Tensor, face_net: FaceNet) -> list[str]:
    """Return lines on the time of a face at 256 px, and on what each form loses on photos that it was not fitted to."""
    side = 256
    photos = resize(photos, side).clamp(-1, 1)
    with tempfile.TemporaryDirectory() as aside:
        forms = exported(student, photos[:CALIBRATED], Path(aside))
        unet = UnetGenerator().eval()
        times = milliseconds({"pix2pix's U-Net, torch": unet, "student, torch": student, **forms}, side)
        slowest = times["pix2pix's U-Net, torch"]
        lines = [
            "",
            "| one face of 256 px, one core | ms | times as fast | L1 to torch | perceptual |",
            "|---" * 5 + "|",
        ]
        test = photos[CALIBRATED:]
        expected = in_batches(student, test)
        for name, ms in times.items():
            lost = ["", ""]
            if name in forms:
                drawn = in_batches(forms[name], test)
                with torch.no_grad():
                    apart = perceptual(face_net.maps(drawn), face_net.maps(expected)).mean()
                lost = [f"{(drawn - expected).abs().mean():.4f}", f"{apart:.4f}"]
            lines.append(f"| {name} | {ms:.1f} | {slowest / ms:.1f} | {lost[0]} | {lost[1]} |")
    return lines


def ten_faces(studio: Studio, path: str, people: Tensor) -> str:
    """Return a line on a photo of ten people: found, aligned, drawn and put back."""
    (photo,) = [grid(to_pil(resize(people[:10], 256).clamp(-1, 1)), columns=5)]
    artist, times = studio.artist(path), []
    found = len(studio.detect(photo))
    for _ in range(4):
        begin = time.process_time()
        studio.toonify(photo, artist)
        times.append(time.process_time() - begin)
    return f"\n{found} faces in a photo of {photo.width}x{photo.height} px: {min(times):.2f} s of one core"


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
    torch.set_num_threads(1)
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
    for name in draws.keys() & {"student", "pix2pix"}:
        drawn = in_batches(draws[name], many)
        rows[name][f"blobs in {len(many)}"] = float((found := has_blob(drawn, many, many_taught)).sum())
        spotted += [tile for img in (many, drawn) for tile in to_pil(img[found][:SHOWN])]
    names = list(rows["student"])
    print(f"{len(photo)} people, {side} px\n\n| | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[key]:.3g}" if key in row else "" for key in names) + " |")
    for_exports = torch.cat([gallery[:CALIBRATED], photo[:32]])
    print("\n".join([*speeds(student, for_exports, face_net), ten_faces(studio, args.student, photo)]))
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
