"""Seams of swapped faces: the outline is where faces end, blends keep what is far from the mask, occluders are seen."""

from __future__ import annotations

import numpy as np
import torch

from mien.faces.align import crop_quad, paste_back
from mien.faces.resample import blur
from mien.faces.seams import face_mask, face_radius, laplacian_blend, low_pass, visible
from mien.images import to_pil

SIDE = 64
# Points of MediaPipe's face oval in sides of the crop, means over 350 crops at a yaw of 0: chin, jaw, cheeks, temples.
OVAL = [(0.498, 0.932), (0.372, 0.891), (0.276, 0.793), (0.721, 0.794), (0.225, 0.603), (0.775, 0.487)]


def radius_at(x: float, y: float, yaw_deg: float = 0.0) -> float:
    radius = face_radius(256, torch.tensor([yaw_deg]))
    return float(radius[0, 0, int(y * 256), int(x * 256)])


def test_the_outline_runs_through_the_face_oval() -> None:
    for x, y in OVAL:
        assert abs(radius_at(x, y) - 1) < 0.12, (x, y)
    assert radius_at(0.5, 0.602) < 0.03


def test_the_outline_leans_with_the_head() -> None:
    """At the height of the ears the oval moves by 0.0048 of the side per degree; the sides are those of the mesh."""
    assert radius_at(0.774 - 20 * 0.0047, 0.545, 20.0) < radius_at(0.774, 0.545, 20.0)
    assert abs(radius_at(0.774 - 20 * 0.0047, 0.545, 20.0) - 1) < 0.12
    for x, y, per_deg in ((0.757, 0.379, -0.0028), (0.276, 0.793, -0.0035), (0.721, 0.794, -0.0034)):  # of the mesh
        assert abs(radius_at(x + 25 * per_deg, y, 25.0) - radius_at(x, y)) < 0.12, (x, y)
    straight, turned = face_radius(SIDE, torch.tensor([25.0])), face_radius(SIDE, torch.tensor([-25.0]))
    torch.testing.assert_close(straight, turned.flip(3))


def test_the_mask_ends_exactly() -> None:
    yaw = torch.tensor([0.0, 18.0])
    radius, mask = face_radius(SIDE, yaw), face_mask(SIDE, yaw, inner=0.9, outer=1.1)
    assert (mask[radius <= 0.9] == 1).all() and (mask[radius >= 1.1] == 0).all()
    assert mask.shape == (2, 1, SIDE, SIDE) and 0.2 < float(mask.mean()) < 0.5


def test_low_frequencies_are_those_inside_of_the_mask() -> None:
    mask = face_mask(SIDE, torch.zeros(1))
    img = torch.where(mask > 0, 0.25, torch.rand(1, 3, SIDE, SIDE))
    inside = low_pass(img, mask, 0.1)[:, :, 20:50, 25:40]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.25), atol=1e-3, rtol=0)


def test_a_blend_of_a_picture_with_itself_is_that_picture() -> None:
    img, mask = torch.rand(2, 3, SIDE, SIDE) * 2 - 1, face_mask(SIDE, torch.tensor([0.0, 20.0]))
    torch.testing.assert_close(laplacian_blend(img, img, mask), img, atol=1e-6, rtol=0)


def test_a_blend_is_each_picture_where_the_mask_is_flat_all_around() -> None:
    front, back = torch.rand(1, 3, SIDE, SIDE), -torch.rand(1, 3, SIDE, SIDE)
    torch.testing.assert_close(laplacian_blend(front, back, torch.ones(1, 1, SIDE, SIDE)), front, atol=1e-6, rtol=0)
    half = torch.zeros(1, 1, SIDE, SIDE)
    half[..., : SIDE // 2] = 1
    blend = laplacian_blend(front, back, half)
    torch.testing.assert_close(blend[..., :8], front[..., :8], atol=1e-5, rtol=0)
    torch.testing.assert_close(blend[..., -8:], back[..., -8:], atol=1e-5, rtol=0)


def test_a_blend_hides_a_step_of_brightness() -> None:
    front, back = torch.full((1, 3, SIDE, SIDE), 0.5), torch.full((1, 3, SIDE, SIDE), -0.5)
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., : SIDE // 2] = 1
    steps = laplacian_blend(front, back, mask).diff(dim=3).abs()
    assert float(steps.max()) < 0.2  # a plain blend has one step of 1


def test_what_an_inversion_does_not_show_hides_the_face() -> None:
    inverted = blur(torch.rand(1, 3, SIDE, SIDE), 4.0)
    photo = (inverted + 0.05 * torch.randn(1, 3, SIDE, SIDE)).clamp(-1, 1)
    photo[:, :, 40:56, 20:44] = torch.tensor([-0.8, 0.9, -0.8])[:, None, None]  # something green over the mouth
    seen = visible(photo, inverted)
    assert (seen[..., 44:52, 24:40] == 0).all() and (seen[..., :32, :] == 1).all()


def test_pasting_within_a_mask_leaves_all_else_byte_for_byte() -> None:
    rng = np.random.RandomState(0)
    photo = to_pil(torch.from_numpy(rng.uniform(-1, 1, (1, 3, 150, 200))).float())[0]
    quad = np.array([[40.0, 20], [50, 120], [150, 110], [140, 10]])
    crop = crop_quad(photo, quad, size_px=SIDE)
    within = face_mask(SIDE, torch.zeros(1), inner=0.5, outer=0.7)
    pasted = paste_back(photo, crop, -crop.img, within=within)
    changed = (np.asarray(pasted) != np.asarray(photo)).any(2)
    ys, xs = np.nonzero(changed)
    to_crop = np.linalg.inv(np.vstack([crop.matrix, [0, 0, 1]]))[:2]
    u, v = (np.column_stack([xs + 0.5, ys + 0.5, np.ones(len(xs))]) @ to_crop.T).T
    assert len(xs) > 500
    allowed = torch.nn.functional.max_pool2d(within, 5, 1, 2)[0, 0].numpy() > 0  # bicubic reaches 2 px
    assert allowed[v.astype(int).clip(0, SIDE - 1), u.astype(int).clip(0, SIDE - 1)].all()
