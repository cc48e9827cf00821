"""The lab's swap: the target is projected towards another's identity, and nothing outside of the mask changes."""

from __future__ import annotations

from dataclasses import replace

import torch

from mien.edits.lab_swap import lab_swap
from mien.edits.swap import Moves, SwapMeans
from mien.inversion.code import Inversion
from mien.inversion.invert import PRESETS
from mien.inversion.project import ProjectConfig
from mien.latents import latent_stats, sample_ws, synthesize
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator


def test_identity_moves_and_the_surroundings_stay() -> None:
    torch.manual_seed(0)
    kwargs = dict(channel_base=256, channel_max=8)
    G = Generator(8, 0, 8, 32, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=kwargs)
    net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False)
    for one in (G, net):
        one.eval().requires_grad_(False)
    means = SwapMeans(net, Moves(torch.zeros(35, 8), torch.ones(35)), latent_stats(G, num=200))
    codes = [Inversion(ws=ws) for ws in sample_ws(G, [1, 2])]
    img = synthesize(G, torch.stack([code.ws for code in codes]))
    preset = PRESETS["lab-swap"].stages[0]
    assert isinstance(preset, ProjectConfig)
    assert (preset.terms.squared, preset.terms.perceptual, preset.terms.identity) == (1.0, 2.0, 1.0)
    quick = replace(preset, num_steps=8, lr=0.1, terms=replace(preset.terms, squared=0.0, perceptual=0.0))
    (one,) = lab_swap(G, img[:1], codes[1:], img[1:], means=means, projection=quick)
    outside = (one.within == 0).expand_as(one.img)
    assert torch.equal(one.img[outside], img[1:][outside])
    own = net(img[:1]).identity
    before, after = (float((net(x).identity * own).sum()) for x in (img[1:], one.code.render(G)))
    assert after > before
