"""Make the bundled `face-motion`: where the points of a face's mesh lie in an aligned crop, by pose and expression.

    python scripts/face_motion.py faces128.zip [--num 2900] [--labels out/mesh.npz] [--out src/mien/bundle/...]

MediaPipe's landmarker (extra `mediapipe`) finds 478 points, pose and blendshapes in crops of the people trained on, a
quarter of them turned by 20 degrees or more; a linear model is fitted, and tried on faces that were left out. What was
found is kept in --labels and used again. A minute of one core.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from mien.atomic import replacing
from mien.faces.landmarks import FACE_LANDMARKER
from mien.images import to_pil
from mien.nets.features import EXPRESSIONS
from mien.training.data import PictureSet, load_pictures, split_people
from mien.training.motion import fit_motion, motion_error
from mien.training.provenance import made_from
from mien.weights.download import fetch
from mien.weights.native import save_net

LICENCE = "research and demonstration"
VIEW_PX = 256
TURNED_DEG, SHARE_TURNED = 20.0, 0.25
NUM_LEFT_OUT = 200
UNSEEN = ("eyeLook", "noseSneer")  # where eyes look moves no outline; a sneer was never seen
Labels = tuple[Tensor, Tensor, Tensor]
"""Points [N, 478, 2] in sides, pose [N, 3] in degrees, expression [N, 32]."""


def chosen(pictures: PictureSet, num: int) -> np.ndarray:
    """Rows of `num` pictures by a fixed seed, of which a share shows turned heads."""
    yaw = np.array([abs(float(value or 0)) for value in pictures.labels["yaw_deg"]])
    order = np.random.RandomState(0).permutation(len(yaw))
    turned, others = order[yaw[order] >= TURNED_DEG], order[yaw[order] < TURNED_DEG]
    num_turned = min(len(turned), int(SHARE_TURNED * num))
    return np.sort(np.concatenate([turned[:num_turned], others[: num - num_turned]]))


def labelled(pictures: PictureSet, rows: np.ndarray, model: Path) -> Labels:
    """Look at crops whole, once, and leave out those in which no face is seen in the middle."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)),
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    points, pose, expression = [], [], []
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for row in rows:
            crop = to_pil(pictures.select(np.array([row])).pixels.float() / 127.5 - 1)[0]
            view = np.array(crop.resize((VIEW_PX, VIEW_PX), PIL.Image.Resampling.BICUBIC))
            found = landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=view))
            mesh = np.array([(p.x, p.y) for face in found.face_landmarks for p in face])
            if not len(mesh) or np.hypot(*(mesh.mean(0) - (0.5, 0.58))) > 0.12:
                continue
            turn = np.array(found.facial_transformation_matrixes[0])[:3, :3]
            turn = turn / np.cbrt(np.linalg.det(turn))
            shapes = {shape.category_name: shape.score for shape in found.face_blendshapes[0]}
            yaw, pitch = math.atan2(turn[0, 2], turn[2, 2]), math.asin(np.clip(-turn[1, 2], -1, 1))
            points.append(mesh)
            pose.append(np.degrees([yaw, pitch, math.atan2(turn[1, 0], turn[1, 1])]))
            expression.append([0.0 if name.startswith(UNSEEN) else shapes[name] for name in EXPRESSIONS])
    found_of = (torch.from_numpy(np.array(values)).float() for values in (points, pose, expression))
    return next(found_of), next(found_of), next(found_of)


def read_labels(path: Path) -> Labels:
    with np.load(path) as kept:
        return tuple(torch.from_numpy(kept[name]).float() for name in ("points", "pose", "expression"))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--num", type=int, default=2900)
    parser.add_argument("--labels", type=Path, default=Path("out/mesh.npz"))
    parser.add_argument("--landmarker", type=Path, help="MediaPipe's face_landmarker.task, by default fetched")
    parser.add_argument("--out", type=Path, default=Path("src/mien/bundle/face-motion.safetensors"))
    parser.add_argument("--cache", type=Path, default=Path("out/cache"))
    args = parser.parse_args()
    if not args.labels.is_file():
        people, _ = split_people(load_pictures(args.data, size_px=128, cache=args.cache))
        seen = labelled(people, chosen(people, args.num), args.landmarker or fetch(FACE_LANDMARKER))
        with replacing(args.labels) as part, open(part, "wb") as file:
            np.savez(file, **{n: v.numpy() for n, v in zip(("points", "pose", "expression"), seen, strict=True)})
    labels = read_labels(args.labels)
    order = torch.from_numpy(np.random.RandomState(1).permutation(len(labels[0])))
    seen, left_out = ([values[rows] for values in labels] for rows in (order[:-NUM_LEFT_OUT], order[-NUM_LEFT_OUT:]))
    motion = fit_motion(*seen)
    away = motion_error(motion, *left_out)
    spread = float((left_out[0] - seen[0].mean(0)).norm(dim=2).mean())
    facts = {
        "made_from": made_from([args.data]),
        "data": ["Labeled Faces in the Wild, aligned as FFHQ is (faces128)"],
        "faces": len(seen[0]),
        "error_of_side": round(away, 5),
        "spread_of_side": round(spread, 5),
        "licence": LICENCE,
    }
    save_net(motion, args.out, provenance=facts, use_half=True)
    print(f"{len(seen[0])} faces; {100 * away:.2f} % of the side off on {len(left_out[0])} left out, ", end="")
    print(f"{100 * spread:.2f} % by the mean face alone")


if __name__ == "__main__":
    main()
