"""StyleGAN2's discriminator against the recorded networks, its definition, and its second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mien.nets.discriminator import Discriminator, minibatch_stddev

DISCRIMINATORS = ("sg2ada_D_resnet_c0", "sg2ada_D_resnet_c3", "sg2nv3_D_resnet_c0")


def tiny_discriminator(**kwargs: Any) -> Discriminator:
    torch.manual_seed(0)
    wanted: dict[str, Any] = dict(c_dim=0, img_resolution=16, img_channels=3, channel_base=64, channel_max=8)
    return Discriminator(**{**wanted, **kwargs})


# ---- Recorded networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_logits_agree_with_the_recorded_ones(name: str, official: Any, agree: Any) -> None:
    D, numbers = official(name, Discriminator)
    img, c = numbers["img"], numbers["c"]
    agree(D(img, c), numbers["logits"], "whole batch", 1e-6)
    for num in (1, 2):
        agree(D(img[:num], c[:num]), numbers[f"logits_n{num}"], f"batch of {num}", 1e-6)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_gradients_of_the_discriminator_agree(name: str, official: Any) -> None:
    """In float64 everywhere; in float32 but where one unit lies within rounding of the kink of its leaky ReLU.

    There the gradient may take either side, and only what that unit sees differs.
    """
    D, numbers = official(name, Discriminator)
    expected, c = numbers["grad_img_n2_crop32"], numbers["c"][:2]
    for dtype, share in ((torch.float64, 0.0), (torch.float32, 0.05)):
        img = numbers["img"][:2].to(dtype).requires_grad_()
        (grad,) = torch.autograd.grad(D.to(dtype)(img, c.to(dtype), dtype=dtype).sum(), img)
        is_off = (grad[:, :, :32, :32] - expected).abs() > 1e-5 * expected.abs().max()
        assert is_off.float().mean() <= share, dtype


# ---- Definitions ----------------------------------------------------------------------------------------------------


def test_an_orig_discriminator_is_its_definition() -> None:
    D, img = tiny_discriminator(architecture="orig"), torch.randn(4, 3, 16, 16)
    x = D.b16.fromrgb(img)
    for block in (D.b16, D.b8):
        x = block.conv1(block.conv0(x))
    torch.testing.assert_close(D(img), D.b4(x, None, None))
    assert not hasattr(D.b8, "fromrgb") and not hasattr(D.b16, "skip")


def test_a_skip_discriminator_reads_the_picture_at_every_size() -> None:
    D, img = tiny_discriminator(architecture="skip"), torch.randn(4, 3, 16, 16)
    assert all(hasattr(D.get_submodule(name), "fromrgb") for name in ("b16", "b8", "b4"))
    assert D(img).shape == (4, 1)
    grads = torch.autograd.grad(D(img).sum(), [D.get_parameter(f"b{res}.fromrgb.weight") for res in (16, 8, 4)])
    assert all(grad.abs().sum() > 0 for grad in grads)


def test_minibatch_stddev_is_its_definition() -> None:
    """One number per group and channel slice; samples i, i + N/G, ... share a group."""
    x = torch.randn(6, 4, 3, 3)
    y = minibatch_stddev(x, 3, 2)
    assert torch.equal(y[:, :4], x) and y.shape == (6, 6, 3, 3)
    for n in range(6):
        group = x[n % 2 :: 2]
        for f in range(2):
            value = (group[:, 2 * f : 2 * f + 2].var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
            torch.testing.assert_close(y[n, 4 + f], value.expand(3, 3))
    assert torch.equal(minibatch_stddev(x[:5], 4, 1), minibatch_stddev(x[:5], 1, 1)), "5 has no divisor below but 1"
    assert minibatch_stddev(x, None, 1)[:, 4].unique().numel() == 1


def test_labels_are_projected() -> None:
    D, img = tiny_discriminator(c_dim=2, mapping_kwargs={"num_layers": 1}), torch.randn(1, 3, 16, 16)
    assert not torch.allclose(D(img, torch.tensor([[1.0, 0]])), D(img, torch.tensor([[0, 1.0]])))


def test_bfloat16_is_close_to_float32() -> None:
    D, img = tiny_discriminator(img_resolution=32, channel_base=1024, channel_max=32), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(D(img, dtype=torch.bfloat16), D(img), rtol=0.05, atol=0.05)


def test_a_batch_is_its_pictures() -> None:
    D, img = tiny_discriminator(epilogue_kwargs={"mbstd_group_size": 1}), torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(D(img), torch.cat([D(one) for one in img.split(1)]))


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="architecture must be one of orig, skip, resnet, got 'fancy'"):
        tiny_discriminator(architecture="fancy")
    with pytest.raises(AssertionError):
        tiny_discriminator()(torch.zeros(1, 3, 8, 8))


# ---- Second derivatives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["resnet", "skip"])
def test_r1_has_exact_gradients(architecture: str, check_penalty: Callable[..., None]) -> None:
    """Mescheder et al. 2018, Eq. 9: the squared gradient of D on real pictures."""
    D = tiny_discriminator(img_resolution=8, channel_max=2, architecture=architecture).double()
    real = torch.randn(2, 3, 8, 8, dtype=torch.float64).requires_grad_()

    def r1(D: Callable[..., Tensor]) -> Tensor:
        logits = D(real, dtype=torch.float64)
        return torch.autograd.grad(logits.sum(), real, create_graph=True)[0].square().sum()

    check_penalty(D, r1, ["b8.fromrgb.weight", "b8.conv0.weight", "b8.conv1.weight", "b4.conv.weight", "b4.out.weight"])
