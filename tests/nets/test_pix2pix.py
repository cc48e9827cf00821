"""pix2pix's networks: their definition; the recorded ones are read in the tests of its files."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from mien.nets.pix2pix import PatchDiscriminator, UnetGenerator


def test_a_patch_of_70_px_decides_one_logit() -> None:
    torch.manual_seed(0)
    D = PatchDiscriminator(2, ndf=2).eval()
    img = torch.randn(1, 2, 256, 256, requires_grad=True)
    logits = D(img)
    assert logits.shape == (1, 1, 30, 30)
    (grad,) = torch.autograd.grad(logits[0, 0, 15, 15], img)
    rows = grad.abs().sum(dim=[0, 1, 3]).nonzero()
    assert rows[-1] - rows[0] + 1 == 70


def test_the_outer_levels_are_skips() -> None:
    """Without what comes from inside, the picture still depends on the picture given."""
    torch.manual_seed(0)
    G = UnetGenerator(ngf=4, num_downs=5).eval()
    with torch.no_grad():
        G.ups[4].conv.weight.zero_()
    a, b = torch.randn(2, 1, 3, 32, 32)
    assert not torch.equal(G(a), G(b))


def test_dropout_is_on_the_inner_levels_and_in_training_only() -> None:
    G = UnetGenerator(ngf=2)
    assert [up.dropout.p for up in G.ups] == [0, 0, 0, 0, 0.5, 0.5, 0.5, 0]
    assert [up.dropout.p for up in UnetGenerator(ngf=2, use_dropout=False).ups] == [0] * 8
    img = torch.randn(2, 3, 256, 256)
    assert not torch.equal(G.train()(img), G(img))
    assert torch.equal(G.eval()(img), G(img))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_convolutions_have_a_bias_where_no_norm_takes_it_away(norm: str) -> None:
    G, D = UnetGenerator(ngf=2, num_downs=5, norm=norm), PatchDiscriminator(ndf=2, norm=norm)
    is_instance = norm == "instance"
    assert [down.conv.bias is not None for down in G.downs] == [is_instance] * 5
    assert [up.conv.bias is not None for up in G.ups] == [True] + [is_instance] * 4
    assert [conv.bias is not None for conv in D.convs] == [True] + [is_instance] * 3 + [True]
    assert G.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("net", [UnetGenerator(1, 2, ngf=2, num_downs=5), PatchDiscriminator(3, ndf=2, num_layers=2)])
def test_the_arguments_rebuild_the_network(net: Any) -> None:
    again = type(net)(**json.loads(json.dumps(net.init_kwargs)))
    again.load_state_dict(net.state_dict())
    img = torch.randn(1, net.in_channels, 32, 32)
    assert torch.equal(again.eval()(img), net.eval()(img))


def test_wrong_pictures_and_arguments_are_refused() -> None:
    G = UnetGenerator(ngf=2)
    for shape in ([1, 3, 200, 256], [1, 1, 256, 256], [3, 256, 256]):
        with pytest.raises(ValueError, match=r"img must be \[N,3,H,W\] with sides of 256 px"):
            G(torch.zeros(shape))
    with pytest.raises(ValueError, match="norm must be one of batch, instance"):
        UnetGenerator(norm="layer")
    with pytest.raises(ValueError, match="at least 2"):
        UnetGenerator(num_downs=1)
