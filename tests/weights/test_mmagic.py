"""Files of mmagic and mmgeneration, written here from their table of names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mien.errors import WeightsError
from mien.weights.build import build
from mien.weights.mmagic import SWAPPED, UNSAID, matches, read

LAYER = r"^(conv1|convs\.\d+|to_rgb1|to_rgbs\.\d+)\.conv"
THEIRS = (
    (r"^style\.(\d+)\.weight$", r"style_mapping.\1.linear.weight_orig"),
    (r"^style\.(\d+)\.bias$", r"style_mapping.\1.bias"),
    (r"^input\.input$", "constant_input.weight"),
    (rf"{LAYER}\.weight$", r"\1.conv.weight_orig"),
    (rf"{LAYER}\.modulation\.weight$", r"\1.conv.style_modulation.linear.weight_orig"),
    (rf"{LAYER}\.modulation\.bias$", r"\1.conv.style_modulation.bias"),
    (r"\.noise\.weight$", ".noise_injector.weight"),
    (r"^noises\.noise_(\d+)$", r"injected_noise_\1"),
    (r"^convs\.0\.0\.weight$", "convs.0.0.conv.weight_orig"),
    (r"^(convs\.\d+\.(?:conv1\.0|conv2\.1|skip\.1))\.weight$", r"\1.conv.weight_orig"),
    (r"^final_conv\.0\.weight$", "final_conv.0.conv.weight_orig"),
    (r"^(final_linear\.\d)\.weight$", r"\1.linear.weight_orig"),
)


def renamed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The names of mmagic for those of rosinality."""
    named = {}
    for name, tensor in state.items():
        for pattern, new in THEIRS:
            name = re.sub(pattern, new, name)
        named[f"{prefix}.{name}"] = tensor
    return named


@pytest.fixture
def tree(data: Path) -> dict[str, Any]:
    files = [torch.load(data / f"rosinality_r64_w64_m8{end}.pt", weights_only=True) for end in ("", "_d")]
    state = renamed(files[0]["g_ema"], "generator_ema") | renamed(files[0]["g_ema"], "generator")
    state["generator_ema.w_avg"] = files[0]["latent_avg"]
    return {"meta": {"mmgen_version": "0.7.1"}, "state_dict": state | renamed(files[1]["d"], "discriminator")}


def test_all_networks_agree_with_the_recorded_ones(tree: dict[str, Any], recorded: Any, agree: Any) -> None:
    checkpoint, numbers = read(tree), recorded("rosinality_r64_w64_m8")
    assert set(checkpoint.networks) == {"G_ema", "G", "D"}
    built = build(checkpoint.networks["G_ema"], "file")
    assert built.notes == (UNSAID,)
    G: Any = built.net
    agree(G.synthesis(G.mapping(numbers["z"]), noise_mode="const"), numbers["img_noise_buffers"])
    agree(G.mapping(numbers["z"], truncation_psi=0.7), numbers["latent_psi0.7"])
    agree(build(checkpoint.networks["D"], "file").net(numbers["d_img"]), numbers["d_logits"])
    assert "mapping.w_avg" not in checkpoint.networks["G"].tensors


@pytest.mark.parametrize(
    "meta",
    [
        {"config": "model = dict(generator=dict(type='StyleGANv2Generator', out_size=64, bgr2rgb=True))"},
        {"cfg": {"model": {"generator": {"bgr2rgb": True}}}},
        {"config": '{"model": {"generator": {"bgr2rgb": true}}}'},
    ],
)
def test_bgr_becomes_rgb(meta: dict[str, Any], tree: dict[str, Any], recorded: Any, agree: Any) -> None:
    numbers = recorded("rosinality_r64_w64_m8")
    tree["meta"] = meta
    found = read(tree).networks["G_ema"]
    assert found.notes == (SWAPPED,)
    G: Any = build(found, "file").net
    agree(G.synthesis(numbers["w"][:, None].repeat(1, 10, 1), noise_mode="const"), numbers["img_noise_buffers"].flip(1))


@pytest.mark.parametrize("text", ["bgr2rgb=False", "input_bgr2rgb=True, bgr2rgb=False", "rgb2bgr=True"])
def test_rgb_stays(text: str, tree: dict[str, Any]) -> None:
    tree["meta"]["config"] = f"model = dict(generator=dict({text}))"
    assert read(tree).networks["G_ema"].notes == ()


def test_a_state_dict_alone_is_read(tree: dict[str, Any]) -> None:
    assert matches(tree) and matches(tree["state_dict"])
    assert set(read(tree["state_dict"]).networks) == {"G_ema", "G", "D"}


def test_what_is_not_of_this_family_does_not_match() -> None:
    for other in (None, {}, {"state_dict": {"generator.synthesis.b4.const": 0}}, {"generator": {}}, {"state_dict": 3}):
        assert not matches(other)


def test_missing_tensors_are_named(tree: dict[str, Any]) -> None:
    del tree["state_dict"]["generator_ema.convs.3.activate.bias"]
    with pytest.raises(WeightsError, match=r"generator: tensors are missing: convs\.3\.activate\.bias"):
        read(tree)


def test_what_is_no_tensor_is_refused(tree: dict[str, Any]) -> None:
    tree["state_dict"]["discriminator.extra"] = 3
    with pytest.raises(WeightsError, match=r"extra.*is a int, not a tensor"):
        read(tree)
