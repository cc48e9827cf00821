"""Measure the face detector against YuNet on a folder of photos: recall, false faces, place of the eyes, time.

    python bench/detector.py PHOTOS --yunet face_detection_yunet_2023mar.onnx [--landmarker face_landmarker.task]
                             [--outdir DRAWN]

PHOTOS has a SOURCES.csv with the columns `file` and `n_faces` (0 = face-free). Needs opencv for YuNet, which says which
faces there are, and MediaPipe for its landmarker, which says best where the eyes are.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageOps
import torch
from PIL.Image import Image

from mien.errors import NoFaceError
from mien.faces.align import MESH_EYES
from mien.faces.detect import MIN_SCORE, Face, detect, load_detector
from mien.faces.landmarks import Landmarker
from mien.images import open_photo, save_png
from mien.training.data import read_table

MIN_SIDE_PX = 40.0
MIN_IOU = 0.4
YUNET_SCORE = 0.7
CONSENSUS_PX = (64, 80, 100, 120, 150, 200)


def yunet_faces(yunet: cv2.FaceDetectorYN, photo: Image) -> list[Face]:
    """Faces by YuNet: a margin of a quarter, near faces at 640 px first, then far ones at 1600 px."""
    pad = max(photo.size) // 4
    pixels = np.pad(np.asarray(photo), ((pad, pad), (pad, pad), (0, 0)), "edge")[:, :, ::-1]
    faces: list[Face] = []
    for longest in (640, 1600):
        scale = longest / max(pixels.shape[:2])
        if longest == 1600 and scale > 1 and faces:
            break
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        view = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how)
        yunet.setInputSize((view.shape[1], view.shape[0]))
        rows = yunet.detect(view)[1]
        for row in rows if rows is not None else []:
            place = row[:14].reshape(7, 2).astype(float)
            place[1] += place[0]
            place = place / scale - pad
            face = Face(place[:2].ravel(), place[2:], float(row[14]))
            if all(overlap(face.box, other.box)[1] < 0.3 for other in faces):
                faces.append(face)
    return faces


def look_closer(yunet: cv2.FaceDetectorYN, photo: Image, face: Face) -> Face:
    """The same face with the points that YuNet sees when it is 120 px large: those of a small face are rough."""
    side = max(face.box[2:] - face.box[:2])
    corner = (face.box[:2] + face.box[2:]) / 2 - side
    box = (*corner, *(corner + 2 * side))
    view = photo.transform((240, 240), PIL.Image.Transform.EXTENT, box, PIL.Image.Resampling.BICUBIC)
    if side > 120:  # a transform does not low-pass
        padded = PIL.ImageOps.expand(photo, math.ceil(side) * 2, "grey")
        box = tuple(v + 2 * math.ceil(side) for v in box)
        view = padded.resize((240, 240), PIL.Image.Resampling.LANCZOS, box=box)
    yunet.setInputSize(view.size)
    rows = yunet.detect(np.ascontiguousarray(np.asarray(view)[:, :, ::-1]))[1]
    if rows is None:
        return face
    row = min(rows, key=lambda row: np.hypot(row[0] + row[2] / 2 - 120, row[1] + row[3] / 2 - 120))
    points = row[4:14].reshape(5, 2).astype(float) * side / 120 + corner
    return Face(face.box, points, face.score)


def consensus(yunet: cv2.FaceDetectorYN, photo: Image, face: Face) -> Face:
    """The same face with the median of the points that YuNet sees at several sizes, each also mirrored.

    One look of YuNet's is off from the others by as much as a good detector is; the middle of many is a finer measure.
    """
    side = max(face.box[2:] - face.box[:2])
    corner = (face.box[:2] + face.box[2:]) / 2 - side
    seen = []
    for size_px in CONSENSUS_PX:
        scale = side / size_px
        pixels = np.asarray(photo)
        if scale > 1:  # a transform does not low-pass
            pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5 * scale)
        to_view = np.column_stack([np.eye(2) / scale, -corner / scale])
        grey = dict(borderMode=cv2.BORDER_CONSTANT, borderValue=(128, 128, 128))
        view = cv2.warpAffine(pixels, to_view, (2 * size_px, 2 * size_px), flags=cv2.INTER_LINEAR, **grey)
        yunet.setInputSize((2 * size_px, 2 * size_px))
        for is_mirrored in (False, True):
            looked = view[:, ::-1] if is_mirrored else view
            rows = yunet.detect(np.ascontiguousarray(looked[:, :, ::-1]))[1]
            if rows is None:
                continue
            row = min(rows, key=lambda row: np.hypot(row[0] + row[2] / 2 - size_px, row[1] + row[3] / 2 - size_px))
            points = row[4:14].reshape(5, 2).astype(float)
            if is_mirrored:
                points = np.column_stack([2 * size_px - points[:, 0], points[:, 1]])[[1, 0, 2, 4, 3]]
            seen.append(points * scale + corner)
    return Face(face.box, np.median(seen, axis=0), face.score) if seen else face


def overlap(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Shared area of two boxes over their union, and over the smaller one."""
    shared = np.prod((np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0))
    areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
    return shared / (sum(areas) - shared), shared / min(areas)


def match(wanted: Sequence[Face], found: Sequence[Face]) -> dict[int, int]:
    """Pair each wanted face with the best free found one, best pairs first."""
    scored = [(overlap(w.box, f.box)[0], i, j) for i, w in enumerate(wanted) for j, f in enumerate(found)]
    pairs: dict[int, int] = {}
    for value, i, j in sorted(scored, reverse=True):
        if value > MIN_IOU and i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def eye_error(wanted: Face, found: Face) -> float:
    """Mean distance of the two eyes over the distance between the wanted eyes."""
    between = np.linalg.norm(wanted.landmarks[1] - wanted.landmarks[0])
    return float(np.linalg.norm(found.landmarks[:2] - wanted.landmarks[:2], axis=1).mean() / between)


def mesh_error(landmarker: Landmarker, photo: Image, face: Face) -> float | None:
    """The same against the middle of the eyes' outlines; None where the landmarker sees no face."""
    try:
        mesh = landmarker.read(photo, face).landmarks
    except NoFaceError:
        return None
    eyes = np.stack([mesh[list(outline)].mean(0) for outline in MESH_EYES])
    return eye_error(Face(face.box, eyes, 1.0), face)


def draw(photo: Image, wanted: Sequence[Face], found: Sequence[Face]) -> Image:
    """Draw the wanted faces thin and red, ours green with points and score."""
    scale = min(1.0, 1000 / max(photo.size))
    view = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))))
    pen = PIL.ImageDraw.Draw(view)
    for faces, colour, width in ((wanted, "red", 1), (found, "lime", 2)):
        for face in faces:
            x0, y0, x1, y1 = face.box * scale
            pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=width)
            for x, y in face.landmarks * scale:
                pen.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=colour)
            if colour == "lime":
                pen.text((x0 + 2, y0), f"{face.score:.2f}", fill="yellow")
    return view


@dataclass
class Totals:
    """What is added up over the photos."""

    wanted: int = 0
    matched: int = 0
    false_faces: int = 0


def main() -> None:
    """Print one row a photo and the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--landmarker", type=Path)
    parser.add_argument("--weights", default="detector")
    parser.add_argument("--min-score", type=float, default=MIN_SCORE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--outdir", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = load_detector(args.weights)
    if args.bf16:
        net = net.bfloat16()
    yunet = cv2.FaceDetectorYN.create(str(args.yunet), "", (320, 320), YUNET_SCORE, 0.3, 5000)
    table = read_table(args.photos / "SOURCES.csv")
    landmarker = Landmarker(args.landmarker) if args.landmarker else None
    totals = Totals()
    errors: list[float] = []
    steady_errors: list[float] = []
    own_errors: list[float] = []
    mesh_errors: list[float] = []
    yunet_errors: list[float] = []
    print(f"{'photo':45s} wanted found  more  eye error %  highest other score")
    for file, num_faces in zip(table["file"], table["n_faces"], strict=True):
        photo = open_photo(args.photos / file)
        sure = [] if num_faces == 0 else yunet_faces(yunet, photo)
        wanted = [face for face in sure if max(face.box[2:] - face.box[:2]) > MIN_SIDE_PX]
        every = detect(net, photo, min_score=0.3)
        found = [face for face in every if face.score >= args.min_score]
        pairs = match(wanted, found)
        known = set(match(sure, every).values())
        other = max((face.score for j, face in enumerate(every) if j not in known), default=0.0)
        new = [eye_error(look_closer(yunet, photo, wanted[i]), found[j]) for i, j in pairs.items()]
        more = len([face for j, face in enumerate(every) if j not in known and face.score >= args.min_score])
        totals.wanted += len(wanted)
        totals.matched += len(pairs)
        totals.false_faces += len(found) if num_faces == 0 else 0
        errors += new
        for i, j in pairs.items():
            steady = consensus(yunet, photo, wanted[i])
            steady_errors.append(eye_error(steady, found[j]))
            own_errors.append(eye_error(steady, look_closer(yunet, photo, wanted[i])))
        if landmarker:
            mesh_errors += filter(None, (mesh_error(landmarker, photo, found[j]) for j in pairs.values()))
            yunet_errors += filter(None, (mesh_error(landmarker, photo, wanted[i]) for i in pairs))
        error = 100 * np.median(new) if new else 0.0
        print(f"{file:45s} {len(wanted):6d} {len(pairs):5d} {more:5d} {error:12.1f} {other:10.2f}")
        if args.outdir:
            save_png(draw(photo, wanted, found), args.outdir / f"{Path(file).stem}.png")
    if landmarker:
        landmarker.close()
    photo = PIL.Image.effect_noise((1280, 853), 50).convert("RGB")
    times = []
    for _ in range(11):
        start = time.perf_counter()
        detect(net, photo)
        times.append(time.perf_counter() - start)
    print(f"recall over {MIN_SIDE_PX:.0f} px  {totals.matched}/{totals.wanted} = {totals.matched / totals.wanted:.3f}")
    print(f"faces in face-free photos  {totals.false_faces}")
    print("eye error, share of the distance between the eyes, median and 90 % of the faces")
    measured = {
        "ours from the median of YuNet's": steady_errors,
        "ours from one look of YuNet's": errors,
        "that look from their median": own_errors,
        "ours from the landmarker's": mesh_errors,
        "YuNet's from the landmarker's": yunet_errors,
    }
    for name, values in measured.items():
        if values:
            print(f"  {name:32s} {np.median(values):.3f}  {np.quantile(values, 0.9):.3f}  ({len(values)} faces)")
    print(f"1280x853 px, {args.threads} threads: median {1e3 * np.median(times):.0f} ms, least {1e3 * min(times):.0f}")


if __name__ == "__main__":
    main()
