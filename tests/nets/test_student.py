"""The student: its size, its shapes, the same picture alone and in a batch, no checkerboard of an even picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mien.nets.student import Student
from mien.weights.load import load_net, save_net

TINY = dict(widths=(4, 6, 8), num_blocks=(0, 1, 1), img_resolution=16)


def tiny() -> Student:
    torch.manual_seed(0)
    return Student(**TINY).requires_grad_(False)  # type: ignore[arg-type]


def test_it_is_as_small_as_it_says() -> None:
    net = Student()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 256, 256))
    assert counter.get_total_flops() / 2 <= 3e9  # multiplications with additions
    assert 2 * sum(p.numel() for p in net.parameters()) < 8e6  # bytes in 16 bits


def test_training_and_use_are_one_and_pictures_do_not_see_one_another() -> None:
    net, img = tiny(), torch.rand(3, 3, 24, 32) * 2 - 1
    trained = net.train()(img)
    assert trained.shape == img.shape
    assert torch.equal(trained, net.eval()(img))
    torch.testing.assert_close(trained[1:2], net(img[1:2]), atol=1e-6, rtol=1e-5)


def test_it_moves_with_the_picture() -> None:
    net = tiny()
    img = torch.rand(1, 3, 64, 64) * 2 - 1
    shifted = net(img.roll(net.step, dims=3))
    torch.testing.assert_close(shifted[..., 24:40, 24:40], net(img)[..., 24:40, 20:36], atol=1e-6, rtol=1e-5)


def test_every_weight_learns() -> None:
    net = Student(**TINY)  # type: ignore[arg-type]
    for residual in (m for m in net.modules() if hasattr(m, "second")):
        torch.nn.init.normal_(residual.second.weight)  # type: ignore[union-attr, arg-type]
    net(torch.rand(2, 3, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    net, img = tiny(), torch.rand(1, 3, 16, 16)
    save_net(net, tmp_path / "student.safetensors")
    again = load_net(tmp_path / "student.safetensors", Student)
    assert again.img_resolution == 16
    assert torch.equal(again(img), net(img))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16), (1, 3, 18, 16), (1, 3, 16, 30)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sides of 4 px"):
        tiny()(torch.zeros(shape))


def test_widths_and_blocks_belong_together() -> None:
    with pytest.raises(ValueError, match="2 widths but 3 numbers"):
        Student(widths=(4, 8), num_blocks=(0, 1, 1))
