"""A fit finds the modes that made the points, and refuses too few faces."""

from __future__ import annotations

import pytest
import torch

from mien.errors import InputError
from mien.nets.features import EXPRESSIONS
from mien.nets.motion import FaceMotion
from mien.training.motion import fit_motion, motion_error


def test_the_modes_that_made_the_points_are_found() -> None:
    torch.manual_seed(0)
    truth = FaceMotion(num_points=5)
    truth.modes.copy_(torch.randn_like(truth.modes))
    pose, expression = 20 * torch.randn(200, 3), torch.rand(200, len(EXPRESSIONS))
    points = truth(pose, expression)
    motion = fit_motion(points, pose, expression, ridge=1e-9)
    torch.testing.assert_close(motion.modes, truth.modes, atol=1e-3, rtol=0)
    assert motion_error(motion, points, pose, expression) < 1e-3


def test_what_was_never_seen_has_no_effect() -> None:
    torch.manual_seed(0)
    pose, expression = 20 * torch.randn(100, 3), torch.rand(100, len(EXPRESSIONS))
    expression[:, 7] = 0
    motion = fit_motion(torch.rand(100, 4, 2), pose, expression)
    assert float(motion.modes[6 + 7].abs().max()) < 1e-9


def test_too_few_faces() -> None:
    with pytest.raises(InputError, match="10 faces for 38 terms"):
        fit_motion(torch.rand(10, 4, 2), torch.rand(10, 3), torch.rand(10, len(EXPRESSIONS)))
