"""NVIDIA's PyTorch pickles give the recorded pictures, logits and truncation; variants are named and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mien.errors import WeightsError
from mien.nets import stylegan3 as alias_free
from mien.nets.discriminator import Discriminator
from mien.nets.stylegan2 import Generator
from mien.weights.build import build
from mien.weights.checkpoint import Checkpoint
from mien.weights.formats import convert, describe, read_checkpoint, verify
from mien.weights.load import load_generator, load_net
from mien.weights.nvidia import matches, read
from mien.weights.unpickle import PERSISTENT, Record, read_tree

NAMES = ("nvpkl_sg2ada", "nvpkl_sg3_sg2", "nvpkl_sg3t")


def recorded(shared: Path, name: str) -> tuple[Path, dict[str, Tensor]]:
    with np.load(shared / "fixtures" / f"{name}.npz") as arrays:
        numbers = {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype.kind in "fiu"}
    return shared / "fixtures" / f"{name}.pkl", {key: t.float() for key, t in numbers.items()}


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    limit = 5e-5 * max(1.0, theirs.abs().max().item())
    assert (ours - theirs).abs().max().item() <= limit


# ---- Recorded numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_generators_and_discriminator_give_the_recorded_numbers(shared: Path, name: str) -> None:
    path, want = recorded(shared, name)
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "NVIDIA pickle" and set(checkpoint.networks) == {"G_ema", "G", "D"}
    c = want["c"] if want["c"].shape[1] else None
    for role in ("G", "G_ema"):
        G: Any = build(checkpoint.networks[role], path.name).net
        assert_close(G.mapping(want["z"], c), want[f"{role}_w"])
        for psi, key in ((1.0, f"{role}_img"), (0.7, f"{role}_img_psi0.7")):
            assert_close(G.synthesis(G.mapping(want["z"], c, truncation_psi=psi), noise_mode="const"), want[key])
    D = build(checkpoint.networks["D"], path.name).net
    assert isinstance(D, Discriminator)
    assert_close(D(want["G_ema_img"], c), want["D_logits"])


def test_the_generator_to_use_is_loaded_unless_another_is_asked_for(shared: Path) -> None:
    path, want = recorded(shared, "nvpkl_sg2ada")
    assert_close(load_generator(path).mapping(want["z"]), want["G_ema_w"])
    assert_close(load_generator(path, role="G").mapping(want["z"]), want["G_w"])
    assert isinstance(load_net(path, Discriminator), Discriminator)
    assert isinstance(load_net(path, role="D"), Discriminator)
    with pytest.raises(WeightsError, match=r"it holds G_ema, a stylegan2\.Generator, .* not E, a Module"):
        load_net(path, role="E")


def test_a_pickle_is_described_and_verified(shared: Path) -> None:
    path, _ = recorded(shared, "nvpkl_sg3_sg2")
    facts = describe(path)
    json.dumps(facts)
    assert facts["file"] == path.name and facts["size_bytes"] == path.stat().st_size and len(facts["sha256"]) == 64
    G, D = facts["networks"]["G_ema"], facts["networks"]["D"]
    assert (G["net"], G["z_dim"], G["w_dim"], G["c_dim"], G["num_ws"]) == ("stylegan2.Generator", 32, 32, 2, 8)
    assert G["img_resolution"] == D["img_resolution"] == 32 and D["net"] == "discriminator.Discriminator"
    assert G["provenance"]["training_set"] == {"max_size": 70000, "resolution": 32, "use_labels": True, "xflip": True}
    assert set(verify(path)) == {"G_ema", "G", "D"}


def test_a_pickle_becomes_a_file_of_ours_with_the_same_bits(shared: Path, tmp_path: Path) -> None:
    path, _ = recorded(shared, "nvpkl_sg2ada")
    ours = convert(path, tmp_path / "g.safetensors")
    before, after = load_generator(path), load_generator(ours)
    assert isinstance(before, nn.Module) and isinstance(after, nn.Module)
    assert after.init_kwargs == json.loads(json.dumps(before.init_kwargs))
    for key, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[key]), key
    recipe = read_checkpoint(ours).networks["G_ema"].recipe
    assert recipe.provenance["source"] == path.name and recipe.provenance["source_format"] == "NVIDIA pickle"
    again = convert(ours, tmp_path / "again.safetensors")
    assert again.read_bytes() == ours.read_bytes()


# ---- Modules made by hand -------------------------------------------------------------------------------------------


def as_record(net: nn.Module, name: str, **attributes: Any) -> Record:
    """Describe a network of ours as persistence describes one of NVIDIA's."""
    state = {
        "_parameters": dict(net._parameters),
        "_buffers": dict(net._buffers),
        "_modules": {key: as_record(below, type(below).__name__) for key, below in net._modules.items() if below},
        **{key: getattr(net, key) for key in ("conv_clamp", "bias_gain") if hasattr(net, key)},
        **attributes,
    }
    return Record(PERSISTENT, (name,), state)


SIZES = dict(z_dim=8, c_dim=2, w_dim=8, img_resolution=16, img_channels=3)


def pickled(tiny: Any, kwargs: dict[str, Any] | None = None, args: tuple[Any, ...] = ()) -> Record:
    return as_record(tiny, "Generator", _init_args=args, _init_kwargs=SIZES if kwargs is None else kwargs)


@pytest.fixture
def tiny() -> Any:
    torch.manual_seed(0)
    mapping = {"num_layers": 3, "lr_multiplier": 0.02, "layer_features": 12, "embed_features": 6}
    return Generator(**SIZES, mapping_kwargs=mapping, channel_base=64, channel_max=8, conv_clamp=256)


def same_picture(checkpoint: Checkpoint, net: Any) -> bool:
    back: Any = build(checkpoint.networks["G_ema"], "file").net
    z, c = torch.ones(1, 8), torch.eye(2)[:1]
    return torch.equal(back(z, c, noise_mode="const"), net(z, c, noise_mode="const"))


@pytest.mark.parametrize("args", [(), (8, 2, 8, 16, 3)])
def test_what_the_arguments_leave_out_is_read_from_layers_and_tensors(tiny: Any, args: tuple[int, ...]) -> None:
    checkpoint = read({"G_ema": pickled(tiny, {} if args else SIZES, args), "D": None})
    kwargs = checkpoint.networks["G_ema"].recipe.kwargs
    assert kwargs["synthesis_kwargs"]["conv_clamp"] == 256 and kwargs["mapping_kwargs"]["lr_multiplier"] == 0.02
    assert same_picture(checkpoint, tiny)


def test_an_alias_free_generator_keeps_its_kernels_and_filters() -> None:
    torch.manual_seed(0)
    rotating = dict(channel_base=128, channel_max=8, conv_kernel=1, use_radial_filters=True, magnitude_ema_beta=0.99)
    net = alias_free.Generator(**SIZES, mapping_kwargs={"num_layers": 1}, **rotating)
    flat = {**SIZES, "mapping_kwargs": {"num_layers": 1}, **rotating, "num_fp16_res": 4, "conv_clamp": 256}
    checkpoint = read({"G_ema": pickled(net, flat)})
    assert same_picture(checkpoint, net)
    with pytest.raises(WeightsError, match="its arguments lack img_channels, w_dim"):
        read({"G_ema": pickled(net, {name: SIZES[name] for name in ("z_dim", "c_dim", "img_resolution")})})


@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
def test_a_discriminator_is_read_from_its_layers(architecture: str) -> None:
    torch.manual_seed(0)
    sizes = dict(c_dim=2, img_resolution=16, img_channels=3)
    common: dict[str, Any] = dict(architecture=architecture, channel_base=64, channel_max=8, conv_clamp=256, cmap_dim=6)
    parts = dict(mapping_kwargs={"num_layers": 2}, epilogue_kwargs={"mbstd_group_size": 2})
    net = Discriminator(**sizes, **common, **parts)
    given = {**sizes, "epilogue_kwargs": {"mbstd_group_size": 2}, "block_kwargs": {"freeze_layers": 0}}
    found = read(as_record(net, "Discriminator", _init_kwargs=given)).networks["D"]
    back = build(found, "file").net
    img, c = torch.randn(4, 3, 16, 16), torch.eye(2)[[0, 1, 1, 0]]
    assert torch.equal(back(img, c), net(img, c))
    assert found.recipe.kwargs["conv_clamp"] == 256


def test_a_module_alone_is_a_checkpoint(tiny: Any) -> None:
    assert matches(pickled(tiny)) and same_picture(read(pickled(tiny)), tiny)


def test_arguments_that_only_concern_speed_are_let_go(tiny: Any) -> None:
    flat = {**SIZES, "fused_modconv_default": "inference_only", "num_fp16_res": 4, "conv_clamp": 256}
    nested = {**SIZES, "synthesis_kwargs": {"use_fp16": True, "resample_filter": (1, 3, 3, 1)}}
    for kwargs in (flat, nested):
        assert same_picture(read(pickled(tiny, kwargs)), tiny)


def test_an_unknown_discriminator_is_left_out_with_a_note(tiny: Any) -> None:
    strange = Record(PERSISTENT, ("ProjectedDiscriminator",), {"_parameters": {}, "_buffers": {}, "_modules": {}})
    checkpoint = read({"G_ema": pickled(tiny), "D": strange})
    assert list(checkpoint.networks) == ["G_ema"]
    assert "'ProjectedDiscriminator', no network of StyleGAN 2 or 3" in checkpoint.networks["G_ema"].notes[0]
    with pytest.raises(WeightsError, match="ProjectedDiscriminator"):
        read({"G_ema": None, "D": strange})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({**SIZES, "head_layers": [1]}, "arguments that mien does not know: head_layers"),
        ({**SIZES, "mapping_kwargs": {"rand_embedding": True}}, "its mapping has .* does not know: rand_embedding"),
        ({**SIZES, "w_dim": 16}, "its arguments say w_dim = 16, its tensors 8"),
        ({**SIZES, "img_resolution": 32}, "its arguments say img_resolution = 32, its tensors 16"),
        ({**SIZES, "mapping_kwargs": 3}, "its mapping has arguments that are not readable"),
        ([], "its arguments are not readable"),
    ],
)
def test_variants_are_named_and_refused(tiny: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as info:
        read({"G_ema": pickled(tiny, kwargs)})
    assert info.value.hint


def test_modules_that_are_none_are_refused(tiny: Any) -> None:
    record = pickled(tiny)
    record.state["_modules"]["mapping"].state["_parameters"] = {"weight": 3}
    with pytest.raises(WeightsError, match=r"mapping\.weight is no tensor"):
        read({"G": record})
    record.state["_modules"]["mapping"] = Record("argparse.Namespace")
    with pytest.raises(WeightsError, match="mapping is no module"):
        read({"G": record})


def test_modules_that_hold_themselves_come_to_an_end(tiny: Any) -> None:
    record = pickled(tiny)
    record.state["_modules"] = {"a": record, "b": record}
    with pytest.raises(WeightsError, match="nested without end"):
        read({"G": record})


def test_the_source_text_of_a_module_is_not_kept(shared: Path) -> None:
    path, _ = recorded(shared, "nvpkl_sg2ada")
    record = read_tree(path)["G_ema"]
    assert record.args == ("Generator",) and "module_src" not in record.state
