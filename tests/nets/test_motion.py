"""Points of faces by pose and expression: a linear model whose terms are what they say."""

from __future__ import annotations

import pytest
import torch

from mien.nets.features import EXPRESSIONS
from mien.nets.motion import MESH_POINTS, NUM_POSE_TERMS, FaceMotion, motion_terms
from mien.weights.load import bundled_names, load_net


def test_terms_are_one_the_pose_up_to_squares_and_the_blendshapes() -> None:
    expression = torch.rand(1, len(EXPRESSIONS))
    terms = motion_terms(torch.tensor([[15.0, -30.0, 7.0]]), expression)[0]
    assert terms[:NUM_POSE_TERMS].tolist() == pytest.approx([1, 0.5, -1, 0.25, 1, -0.5])
    assert torch.equal(terms[NUM_POSE_TERMS:], expression[0])


def test_points_are_the_sum_of_modes() -> None:
    motion = FaceMotion(num_points=3)
    motion.modes.copy_(torch.randn_like(motion.modes))
    still = torch.zeros(2, len(EXPRESSIONS))
    assert torch.equal(motion(torch.zeros(2, 3), still)[1], motion.modes[0])
    shown = still.clone()
    shown[1, 4] = 0.5
    moved = motion(torch.zeros(2, 3), shown)[1] - motion.modes[0]
    torch.testing.assert_close(moved, 0.5 * motion.modes[NUM_POSE_TERMS + 4])


@pytest.fixture(scope="module")
def motion() -> FaceMotion:
    if "face-motion" not in bundled_names():
        pytest.skip("face-motion is not in this installation")
    return load_net("face-motion", FaceMotion)


def by_name(**shown: float) -> torch.Tensor:
    return torch.tensor([[shown.get(name, 0.0) for name in EXPRESSIONS]])


def test_the_bundled_one_knows_what_names_and_signs_mean(motion: FaceMotion) -> None:
    """Of the mesh 1 is the tip of the nose, 13 and 14 the lips, 61 and 291 the corners, 105 a brow, 159 a lid."""
    rest = motion(torch.zeros(1, 3), by_name())[0]
    assert rest.shape == (MESH_POINTS, 2) and float(rest.min()) > 0 and float(rest.max()) < 1
    right, down = (motion(torch.tensor([pose]), by_name())[0, 1] - rest[1] for pose in ((20.0, 0, 0), (0, 20.0, 0)))
    assert float(right[0]) > 0.02 and float(down[1]) > 0.01
    opened = motion(torch.zeros(1, 3), by_name(jawOpen=0.6))[0]
    assert float(opened[14, 1] - opened[13, 1]) > float(rest[14, 1] - rest[13, 1]) + 0.03
    smiling = motion(torch.zeros(1, 3), by_name(mouthSmileLeft=0.8, mouthSmileRight=0.8))[0]
    assert float((smiling[291] - smiling[61])[0]) > float((rest[291] - rest[61])[0]) + 0.01
    raised = motion(torch.zeros(1, 3), by_name(browOuterUpLeft=0.8, browOuterUpRight=0.8, browInnerUp=0.8))[0]
    assert float(raised[105, 1]) < float(rest[105, 1]) - 0.005
    shut = motion(torch.zeros(1, 3), by_name(eyeBlinkLeft=0.9, eyeBlinkRight=0.9))[0]
    assert float(shut[145, 1] - shut[159, 1]) < float(rest[145, 1] - rest[159, 1]) - 0.005
