"""What the face network is shown: distorted views of two labelled sets, and how labels move with the pictures.

Each picture with an identity comes with another of the same person, or with another view of itself: most people have
one picture only. The pictures with ages serve as people of one picture each.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mien.nets.features import EXPRESSIONS, FRAME_PX, WINDOW, flip_expression
from mien.training.data import Batches, PictureSet
from mien.training.distortions import Placement, distort, place, random_placement

__all__ = [
    "Labels",
    "Views",
    "age_labels",
    "ages_frame",
    "expression_labels",
    "faces_frame",
    "gender_labels",
    "pose_labels",
    "turn_pose",
]

# Mean eyes of an FFHQ crop and of the tight crops with ages, both of side 1, and the ratio of the eyes' distances.
FFHQ_EYES, AGES_EYES, AGES_SCALE = (0.4985, 0.472), (0.505, 0.300), 0.65


class Labels(NamedTuple):
    """What is known of a batch of N views: the first F come from `faces`, the rest from `ages`."""

    identity: Tensor  # [N] class
    pose: Tensor  # [F, 3] degrees
    expression: Tensor  # [F, 32] in [0,1]
    age: Tensor  # [N - F] years
    gender: Tensor  # [N - F] 0 female, 1 male


def turn_pose(pose_deg: Tensor, how: Placement) -> Tensor:
    """Return the head pose [N,3] (yaw, pitch, roll) of pictures after `how` placed them.

    The forward vector of the face is mirrored and turned with the picture; roll counts the turn.
    """
    yaw, pitch, roll = torch.deg2rad(pose_deg).unbind(1)
    sign = torch.where(how.is_mirrored, -1.0, 1.0)
    x, y, z = sign * yaw.sin() * pitch.cos(), -pitch.sin(), yaw.cos() * pitch.cos()  # y is up
    turn = torch.deg2rad(how.turn_deg)
    x, y = x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()
    turned = torch.stack([torch.atan2(x, z), -y.clamp(-1, 1).asin(), sign * roll + turn], 1)
    return torch.rad2deg(turned)


def first(how: Placement, num: int) -> Placement:
    """Return the placements of the first `num` pictures."""
    return Placement(how.is_mirrored[:num], how.turn_deg[:num], how.scale[:num], how.shift[:num])


def faces_frame(num: int) -> Tensor:
    """Return where the network's window lies in an FFHQ crop, [num,2,3] for `place`."""
    top, left, side = WINDOW
    scale = side / FRAME_PX
    x, y = (2 * corner / FRAME_PX + scale - 1 for corner in (left, top))
    return torch.tensor([[scale, 0, x], [0, scale, y]]).expand(num, 2, 3)


def ages_frame(num: int) -> Tensor:
    """Return where the same window lies in a tight crop with an age, [num,2,3] for `place`."""
    ffhq, ages = 2 * torch.tensor(FFHQ_EYES) - 1, 2 * torch.tensor(AGES_EYES) - 1
    frame = faces_frame(1) / AGES_SCALE
    frame[:, :, 2] += ages - ffhq / AGES_SCALE
    return frame.expand(num, 2, 3)


def pose_labels(faces: PictureSet) -> Tensor:
    """Yaw, pitch and roll [N,3] degrees of aligned crops: the table's roll is the photo's, alignment took it away."""
    columns = [faces.labels["yaw_deg"], faces.labels["pitch_deg"], np.zeros(len(faces))]
    return torch.from_numpy(np.stack(columns, 1)).float()


def expression_labels(faces: PictureSet) -> Tensor:
    """Blendshapes [N,32] in [0,1]."""
    return torch.from_numpy(np.stack([faces.labels[name] for name in EXPRESSIONS], 1)).float()


def age_labels(ages: PictureSet) -> Tensor:
    """Ages [N] in years."""
    return torch.from_numpy(ages.labels["age"]).float()


def gender_labels(ages: PictureSet) -> Tensor:
    """0 female, 1 male, [N]."""
    return torch.from_numpy(ages.labels["gender"] == "male").float()


class Views:
    """Batches of distorted views with their labels, each a function of (seed, step) alone.

    Args:
        faces: pictures with identity, pose and expression; each comes with a partner.
        ages: pictures with age and gender; each comes twice.
        faces_per_step: pictures of `faces` in a batch, before their partners.
        ages_per_step: the same of `ages`.
        seed: of order, partners and distortions.
    """

    def __init__(
        self, faces: PictureSet, ages: PictureSet, *, faces_per_step: int, ages_per_step: int, seed: int
    ) -> None:
        people, classes = np.unique(faces.labels["identity"], return_inverse=True)
        self.num_classes = len(people) + len(ages)
        self.faces, self.ages, self.seed = faces, ages, seed
        self._classes = torch.from_numpy(np.concatenate([classes, len(people) + np.arange(len(ages))]))
        self._rows_of: dict[int, list[int]] = defaultdict(list)
        for row, person in enumerate(classes.tolist()):
            self._rows_of[person].append(row)
        self._face_batches = Batches(len(faces), faces_per_step, seed=seed)
        self._age_batches = Batches(len(ages), ages_per_step, seed=seed + 1)
        self._pose, self._expression = pose_labels(faces), expression_labels(faces)
        self._age, self._gender = age_labels(ages), gender_labels(ages)

    def at(self, step: int) -> tuple[Tensor, Labels]:
        """Return windows [N,3,64,64] in [-1,1] and the labels of step `step`."""
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rows = self._face_batches.at(step)
        rows = torch.cat([rows, self._partners(rows, step)])
        age_rows = self._age_batches.at(step).repeat(2)
        pixels = torch.cat([self.faces.pixels[rows], self.ages.pixels[age_rows]])
        how = random_placement(len(pixels), rng)
        frames = torch.cat([faces_frame(len(rows)), ages_frame(len(age_rows))])
        img = place(pixels.float() / 127.5 - 1, how, frame=frames, size_px=WINDOW[2])
        mirrored = how.is_mirrored[: len(rows)]
        expression = self._expression[rows]
        labels = Labels(
            identity=self._classes[torch.cat([rows, len(self.faces) + age_rows])],
            pose=turn_pose(self._pose[rows], first(how, len(rows))),
            expression=torch.where(mirrored[:, None], flip_expression(expression), expression),
            age=self._age[age_rows],
            gender=self._gender[age_rows],
        )
        return distort(img, rng), labels

    def _partners(self, rows: Tensor, step: int) -> Tensor:
        """Return for each row another row of the same person, or the row itself where there is none."""
        draw = np.random.default_rng((self.seed, 1, step))
        partners = []
        for row in rows.tolist():
            others = [r for r in self._rows_of[int(self._classes[row])] if r != row] or [row]
            partners.append(others[draw.integers(len(others))])
        return torch.tensor(partners)
