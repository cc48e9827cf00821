"""NVIDIA's TensorFlow pickles: recorded networks, and every configuration written by hand from networks of ours.

The rules below say where a tensor of ours belongs in TensorFlow; they are kept apart from the reader's own table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import WeightsError
from mien.nets import stylegan1
from mien.nets.discriminator import Discriminator
from mien.nets.stylegan2 import Generator
from mien.weights.build import build
from mien.weights.checkpoint import Found
from mien.weights.formats import read_checkpoint
from mien.weights.tensorflow import matches, read
from mien.weights.unpickle import TENSORFLOW, Record

Rule = tuple[str, str, Callable[[Tensor], Tensor]]


def same(x: Tensor) -> Tensor:
    return x


def turned(x: Tensor) -> Tensor:
    return x.T if x.ndim == 2 else x.permute(2, 3, 1, 0)


def mirrored(x: Tensor) -> Tensor:
    return x.flip(2, 3).permute(2, 3, 1, 0)


def less_one(x: Tensor) -> Tensor:
    return x - 1


def plane(x: Tensor) -> Tensor:
    return x[None, None]


MAPPING: list[Rule] = [
    (r"mapping\.w_avg", "dlatent_avg", same),
    (r"mapping\.fc(\d+)\.weight", r"mapping:Dense\1/weight", turned),
    (r"mapping\.fc(\d+)\.bias", r"mapping:Dense\1/bias", same),
]
STYLEGAN2: list[Rule] = [
    *MAPPING,
    (r"synthesis\.b4\.const", "synthesis:4x4/Const/const", lambda x: x[None]),
    (r"synthesis\.b4\.conv1\.noise_const", "synthesis:noise0", plane),
    (r"synthesis\.b4\.conv1\.affine\.weight", "synthesis:4x4/Conv/mod_weight", turned),
    (r"synthesis\.b4\.conv1\.affine\.bias", "synthesis:4x4/Conv/mod_bias", less_one),
    (r"synthesis\.b4\.conv1\.weight", "synthesis:4x4/Conv/weight", turned),
    (r"synthesis\.b4\.conv1\.(\w+)", r"synthesis:4x4/Conv/\1", same),
    (r"synthesis\.b8\.conv0\.noise_const", "synthesis:noise1", plane),
    (r"synthesis\.b8\.conv1\.noise_const", "synthesis:noise2", plane),
    (r"synthesis\.b16\.conv0\.noise_const", "synthesis:noise3", plane),
    (r"synthesis\.b16\.conv1\.noise_const", "synthesis:noise4", plane),
    (r"synthesis\.b(\d+)\.conv0\.affine\.weight", r"synthesis:\1x\1/Conv0_up/mod_weight", turned),
    (r"synthesis\.b(\d+)\.conv0\.affine\.bias", r"synthesis:\1x\1/Conv0_up/mod_bias", less_one),
    (r"synthesis\.b(\d+)\.conv0\.weight", r"synthesis:\1x\1/Conv0_up/weight", mirrored),
    (r"synthesis\.b(\d+)\.conv0\.(\w+)", r"synthesis:\1x\1/Conv0_up/\2", same),
    (r"synthesis\.b(\d+)\.conv1\.affine\.weight", r"synthesis:\1x\1/Conv1/mod_weight", turned),
    (r"synthesis\.b(\d+)\.conv1\.affine\.bias", r"synthesis:\1x\1/Conv1/mod_bias", less_one),
    (r"synthesis\.b(\d+)\.conv1\.weight", r"synthesis:\1x\1/Conv1/weight", turned),
    (r"synthesis\.b(\d+)\.conv1\.(\w+)", r"synthesis:\1x\1/Conv1/\2", same),
    (r"synthesis\.b(\d+)\.torgb\.affine\.weight", r"synthesis:\1x\1/ToRGB/mod_weight", turned),
    (r"synthesis\.b(\d+)\.torgb\.affine\.bias", r"synthesis:\1x\1/ToRGB/mod_bias", less_one),
    (r"synthesis\.b(\d+)\.torgb\.weight", r"synthesis:\1x\1/ToRGB/weight", turned),
    (r"synthesis\.b(\d+)\.torgb\.bias", r"synthesis:\1x\1/ToRGB/bias", same),
    (r"synthesis\.b(\d+)\.skip\.weight", r"synthesis:\1x\1/Skip/weight", mirrored),
]
EMBED: list[Rule] = [
    (r"mapping\.embed\.weight", "mapping:LabelEmbed/weight", turned),
    (r"mapping\.embed\.bias", "mapping:LabelEmbed/bias", same),
]
CONCAT: list[Rule] = [(r"mapping\.embed\.weight", "mapping:LabelConcat/weight", turned)]
STYLEGAN1: list[Rule] = [
    *MAPPING,
    *CONCAT,
    (r"synthesis\.torgb\.weight", "synthesis:ToRGB_lod0/weight", turned),
    (r"synthesis\.torgb\.bias", "synthesis:ToRGB_lod0/bias", same),
    (r"synthesis\.b4\.const", "synthesis:4x4/Const/const", lambda x: x[None]),
    *(
        (rf"synthesis\.b{4 << i}\.layer{j}\.noise_const", f"synthesis:noise{2 * i + j}", plane)
        for i in range(3)
        for j in range(2)
    ),
    *(
        rule
        for ours, theirs in (
            (r"synthesis\.b(4)\.layer0", r"synthesis:\1x\1/Const"),
            (r"synthesis\.b(4)\.layer1", r"synthesis:\1x\1/Conv"),
            (r"synthesis\.b(\d+)\.layer0", r"synthesis:\1x\1/Conv0_up"),
            (r"synthesis\.b(\d+)\.layer1", r"synthesis:\1x\1/Conv1"),
        )
        for rule in (
            (rf"{ours}\.noise_strength", rf"{theirs}/Noise/weight", same),
            (rf"{ours}\.affine\.weight", rf"{theirs}/StyleMod/weight", turned),
            (rf"{ours}\.affine\.bias", rf"{theirs}/StyleMod/bias", same),
            (rf"{ours}\.weight", rf"{theirs}/weight", turned),
            (rf"{ours}\.bias", rf"{theirs}/bias", same),
        )
    ),
]
DISCRIMINATOR: list[Rule] = [
    (r"b(\d+)\.fromrgb\.weight", r"\1x\1/FromRGB/weight", turned),
    (r"b(\d+)\.fromrgb\.bias", r"\1x\1/FromRGB/bias", same),
    (r"b(\d+)\.conv0\.weight", r"\1x\1/Conv0/weight", turned),
    (r"b(\d+)\.conv0\.bias", r"\1x\1/Conv0/bias", same),
    (r"b(\d+)\.conv1\.weight", r"\1x\1/Conv1_down/weight", turned),
    (r"b(\d+)\.conv1\.bias", r"\1x\1/Conv1_down/bias", same),
    (r"b(\d+)\.skip\.weight", r"\1x\1/Skip/weight", turned),
    (r"b4\.conv\.weight", "4x4/Conv/weight", turned),
    (r"b4\.conv\.bias", "4x4/Conv/bias", same),
    (r"b4\.fc\.weight", "4x4/Dense0/weight", turned),
    (r"b4\.fc\.bias", "4x4/Dense0/bias", same),
    (r"b4\.out\.weight", "Output/weight", turned),
    (r"b4\.out\.bias", "Output/bias", same),
    (r"mapping\.embed\.weight", "LabelEmbed/weight", turned),
    (r"mapping\.embed\.bias", "LabelEmbed/bias", same),
    (r"mapping\.fc(\d+)\.weight", r"Mapping\1/weight", turned),
    (r"mapping\.fc(\d+)\.bias", r"Mapping\1/bias", same),
]


def randomised(net: nn.Module) -> Any:
    """Fill a network with numbers that one can be taken from and given back to without rounding."""
    random = torch.Generator().manual_seed(3)
    for name, tensor in net.state_dict().items():
        if not name.endswith("_filter"):
            tensor.copy_((torch.randn(tensor.shape, generator=random) * 1024).round() / 1024)
    return net.eval().requires_grad_(False)


def network(
    net: nn.Module, rules: list[Rule], version: int, kwargs: Mapping[str, Any] | None = None, **more: Any
) -> Record:
    """Describe a network as TensorFlow's code writes it, numbers of no axis as plain ones."""
    parts: dict[str, list[tuple[str, Any]]] = {"": [("lod", more.pop("lod", 0.0))]}
    for name, tensor in net.state_dict().items():
        if name.endswith("_filter"):
            continue
        pattern, theirs, change = next(rule for rule in rules if re.fullmatch(rule[0], name))
        part, _, variable = re.sub(pattern, theirs, name).rpartition(":")
        value = change(tensor).clone()
        parts.setdefault(part, []).append((variable, value if value.ndim else value.item()))

    def record(name: str, **state: Any) -> Record:
        given = {"version": version, "name": name, "build_module_src": "raise SystemExit", "variables": parts[name]}
        return Record(TENSORFLOW, (), {**given, "static_kwargs": dict(kwargs or {}), **state})

    components = {name: record(name) for name in parts if name}
    return record(
        "", components=components, build_func_name="D_x" if "b4.out.bias" in net.state_dict() else "G", **more
    )


def renamed(record: Record, old: str, new: str) -> Record:
    """Give variables other names."""
    for part in (record, *record.state["components"].values()):
        part.state["variables"] = [(name.replace(old, new), value) for name, value in part.state["variables"]]
    return record


def tiny(**kwargs: Any) -> Generator:
    wanted: dict[str, Any] = dict(z_dim=6, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)
    wanted |= dict(mapping_kwargs={"num_layers": 2}, synthesis_kwargs={"channel_base": 64, "channel_max": 8})
    made: Generator = randomised(Generator(**{**wanted, **kwargs}))
    return made


def tiny1(**kwargs: Any) -> stylegan1.Generator:
    wanted: dict[str, Any] = dict(z_dim=6, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)
    synthesis_kwargs = {"channel_base": 64, "channel_max": 8, "norm_eps": 1e-5}
    wanted |= dict(mapping_kwargs={"num_layers": 3}, synthesis_kwargs=synthesis_kwargs)
    made: stylegan1.Generator = randomised(stylegan1.Generator(**{**wanted, **kwargs}))
    return made


def check_same(found: Found, net: nn.Module) -> Any:
    """The network that is found is the one that was written, bit by bit."""
    built = build(found, "x.pkl").net
    expected = net.state_dict()
    assert built.state_dict().keys() == expected.keys()
    for name, tensor in built.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    return built


# ---- Recorded networks ----------------------------------------------------------------------------------------------


def test_stylegan_is_the_recorded_one(data: Path, recorded: Any, agree: Any) -> None:
    numbers = recorded("tfpkl_sg1")
    checkpoint = read_checkpoint(data / "tfpkl_sg1.pkl")
    assert checkpoint.format == "TensorFlow pickle" and set(checkpoint.networks) == {"G_ema", "G"}
    found = checkpoint.networks["G_ema"]
    assert found.recipe.provenance == {"truncation_psi": 0.7, "truncation_cutoff": 8}
    assert found.notes == ()
    G: Any = build(found, "tfpkl_sg1.pkl").net
    ws = G.mapping(numbers["z"])
    agree(ws[:, 0], numbers["w"], "w")
    agree(G.synthesis(ws, noise_mode="const"), numbers["img"], "image")
    img = G(numbers["z"], truncation_psi=0.7, truncation_cutoff=8, noise_mode="const")
    agree(img, numbers["img_trunc_0.7_max8"], "truncated")


def test_stylegan2_is_the_recorded_one(data: Path, recorded: Any, agree: Any) -> None:
    numbers = recorded("tfpkl_sg2")
    networks = read_checkpoint(data / "tfpkl_sg2.pkl").networks
    assert set(networks) == {"G_ema", "G", "D"}
    G: Any = build(networks["G_ema"], "tfpkl_sg2.pkl").net
    D: Any = build(networks["D"], "tfpkl_sg2.pkl").net
    z = numbers["z"]
    agree(G.mapping(z), numbers["w"], "w")
    img = G(z, noise_mode="const")
    agree(img, numbers["img"], "image")
    agree(G(z, truncation_psi=0.7, noise_mode="const"), numbers["img_psi0.7"], "truncated")
    agree(D(img), numbers["D_logits"], "logits", 1e-5)


# ---- Configurations written by hand ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("version", [4, 5])
def test_every_architecture_comes_back_bit_by_bit(architecture: str, version: int) -> None:
    G = tiny(synthesis_kwargs={"channel_base": 64, "channel_max": 8, "architecture": architecture})
    D = randomised(Discriminator(0, 16, 3, architecture=architecture, channel_base=64, channel_max=8))
    tree = (network(G, STYLEGAN2, version), network(D, DISCRIMINATOR, version), network(G, STYLEGAN2, version))
    assert matches(tree) and matches(list(tree)) and matches(dict(zip(("G", "D", "Gs"), tree, strict=True)))
    checkpoint = read(tree)
    assert list(checkpoint.networks) == ["G_ema", "G", "D"]
    check_same(checkpoint.networks["G_ema"], G)
    check_same(checkpoint.networks["D"], D)
    group = checkpoint.networks["D"].recipe.kwargs["epilogue_kwargs"]["mbstd_group_size"]
    assert group == {4: 4, 5: None}[version], "what the code of the time did where nothing is said"


def test_configurations_that_grew_keep_their_colours_outside_of_blocks() -> None:
    """Karras et al. 2020, configurations B to D: ToRGB_lod0 alone is used, the others are left over."""
    G = tiny(synthesis_kwargs={"channel_base": 64, "channel_max": 8, "architecture": "orig"})
    record = renamed(network(G, STYLEGAN2, 4), "16x16/ToRGB", "ToRGB_lod0")
    part = record.state["components"]["synthesis"].state
    for lod in (1, 2):
        part["variables"] += [(f"ToRGB_lod{lod}/{name}", torch.zeros(1)) for name in ("weight", "bias", "mod_weight")]
    check_same(read(record).networks["G_ema"], G)
    D = randomised(Discriminator(0, 16, 3, architecture="orig", channel_base=64, channel_max=8))
    record = renamed(network(D, DISCRIMINATOR, 4), "16x16/FromRGB", "FromRGB_lod0")
    record.state["variables"].append(("FromRGB_lod1/weight", torch.zeros(1)))
    check_same(read(record).networks["D"], D)


@pytest.mark.parametrize("num_layers", [0, 2])
def test_labels_by_embedding_come_back(num_layers: int) -> None:
    """StyleGAN2-ADA: LabelEmbed in both networks, a mapping of labels in the discriminator."""
    G = tiny(c_dim=3, mapping_kwargs={"num_layers": 2, "embed_features": 5, "layer_features": 7})
    mapping_kwargs = dict(num_layers=num_layers, embed_features=4, layer_features=4, lr_multiplier=0.1)
    D = Discriminator(3, 16, 3, channel_base=64, channel_max=8, cmap_dim=4, mapping_kwargs=mapping_kwargs)
    tree = (
        network(G, STYLEGAN2 + EMBED, 5),
        network(randomised(D), DISCRIMINATOR, 5),
        network(G, STYLEGAN2 + EMBED, 5),
    )
    networks = read(tree).networks
    check_same(networks["G_ema"], G)
    built = check_same(networks["D"], D)
    img, c = torch.randn(3, 3, 16, 16), torch.eye(3)
    D.b4.mbstd_group_size = None  # as where nothing is said
    torch.testing.assert_close(built(img, c), D(img, c))


def test_labels_beside_z_come_back() -> None:
    """StyleGAN2: LabelConcat in the generator, normalised with z; an output for each class in the discriminator."""
    G = tiny(c_dim=3, mapping_kwargs={"num_layers": 2, "concat_labels": True})
    built = check_same(read(network(G, STYLEGAN2 + CONCAT, 4)).networks["G_ema"], G)
    z, c = torch.randn(3, 6), torch.eye(3)
    w = torch.cat([z, c @ G.mapping.embed.weight.T], dim=1)
    w = w / w.square().mean(dim=1, keepdim=True).sqrt()
    for layer in (G.mapping.fc0, G.mapping.fc1):
        w = F.leaky_relu(w @ layer.weight.T * 0.01 / w.shape[1] ** 0.5 + 0.01 * layer.bias, 0.2) * 2**0.5
    torch.testing.assert_close(built.mapping(z, c)[:, 0], w)


def test_one_output_for_each_class_is_chosen_by_the_label() -> None:
    plain = Discriminator(0, 16, 3, channel_base=64, channel_max=8)
    plain.b4.out = type(plain.b4.out)(8, 5)
    found = read(network(randomised(plain), DISCRIMINATOR, 4)).networks["D"]
    assert found.recipe.kwargs["c_dim"] == 5
    D: Any = build(found, "x.pkl").net
    img, label = torch.randn(4, 3, 16, 16), torch.tensor([2, 0, 4, 1])
    outputs = plain(img)
    assert outputs.shape == (4, 5)
    torch.testing.assert_close(D(img, torch.eye(5)[label])[:, 0], outputs[torch.arange(4), label], rtol=1e-5, atol=1e-5)


def test_arguments_that_leave_no_trace_are_taken_from_the_file() -> None:
    mapping_kwargs = dict(num_layers=2, lr_multiplier=0.05, activation="relu", w_avg_beta=0.9)
    more = dict(conv_clamp=0.5, num_fp16_res=2, resample_filter=[1, 2, 1], activation="relu")
    G = tiny(mapping_kwargs=mapping_kwargs, synthesis_kwargs={"channel_base": 64, "channel_max": 8, **more})
    kwargs = dict(
        mapping_lrmul=0.05,
        mapping_nonlinearity="relu",
        nonlinearity="relu",
        w_avg_beta=0.9,
        conv_clamp=0.5,
        num_fp16_res=2,
        resample_kernel=torch.tensor([1, 2, 1]),
        truncation_psi=0.5,
        fmap_base=32,
        our_own="yes",
    )
    found = read(network(G, STYLEGAN2, 5, kwargs)).networks["G_ema"]
    assert found.notes == ("arguments that NVIDIA's networks do not have were left out: our_own",)
    assert found.recipe.provenance == {"truncation_psi": 0.5}
    built = check_same(found, G)
    assert built.init_kwargs["mapping_kwargs"] == mapping_kwargs
    assert built.init_kwargs["synthesis_kwargs"] == {"channel_base": 64, "channel_max": 8, **more}
    z = torch.randn(1, 6)
    assert torch.equal(built(z, noise_mode="const"), G(z, noise_mode="const"))


def test_a_discriminators_filter_of_another_length_is_taken_from_the_file() -> None:
    fir = {"resample_filter": [1, 2, 1]}
    D: Any = randomised(Discriminator(0, 16, 3, channel_base=64, channel_max=8, block_kwargs=fir))
    found = read(network(D, DISCRIMINATOR, 4, {"resample_kernel": torch.tensor([1, 2, 1])})).networks["D"]
    img = torch.randn(2, 3, 16, 16)
    assert torch.equal(check_same(found, D)(img), D(img))


@pytest.mark.parametrize("c_dim", [0, 2])
def test_stylegan_comes_back_bit_by_bit(c_dim: int) -> None:
    G = tiny1(c_dim=c_dim)
    record = network(G, STYLEGAN1, 3, {"fused_scale": "auto", "use_noise": 1})
    record.state["components"]["synthesis"].state["variables"].append(("ToRGB_lod1/weight", torch.zeros(1)))
    found = read((record, record, record)).networks["G_ema"]
    assert found.notes == ()
    built = check_same(found, G)
    z, c = torch.randn(2, 6), torch.eye(2) if c_dim else None
    assert torch.equal(built(z, c, noise_mode="const"), G(z, c, noise_mode="const"))


def test_how_stylegan_doubles_and_blurs_is_taken_from_the_file() -> None:
    G = tiny1()
    for given, kwargs in (
        ({"fused_scale": True, "blur_filter": None}, {"fused_from": 4, "blur_filter": [1]}),
        ({"fused_scale": False, "blur_filter": [1, 3, 3, 1]}, {"fused_from": 1 << 20, "blur_filter": [1, 3, 3, 1]}),
    ):
        found = read(network(G, STYLEGAN1, 2, given)).networks["G_ema"]
        assert found.recipe.kwargs["synthesis_kwargs"] == G.init_kwargs["synthesis_kwargs"] | kwargs
        check_same(found, G)


def test_a_network_that_still_grew_is_one_of_the_size_it_had() -> None:
    whole, small = tiny1(), tiny1(img_resolution=8)
    record = network(whole, STYLEGAN1, 3, lod=1.0)
    variables = record.state["components"]["synthesis"].state["variables"]
    wanted = dict(network(small, STYLEGAN1, 3).state["components"]["synthesis"].state["variables"])
    variables[:] = [(name, wanted.get(name, value)) for name, value in variables if "ToRGB" not in name]
    variables += [(name.replace("lod0", "lod1"), value) for name, value in wanted.items() if "ToRGB" in name]
    variables.append(("ToRGB_lod0/weight", torch.zeros(1)))
    record.state["components"]["mapping"] = network(small, STYLEGAN1, 3).state["components"]["mapping"]
    record.state["variables"] = [("lod", 1.0), ("dlatent_avg", small.w_avg)]
    found = read(record).networks["G_ema"]
    assert found.notes == ("it had grown to 8 of 16 px: read as a network of that size",)
    check_same(found, small)
    record.state["variables"][0] = ("lod", 0.25)
    with pytest.raises(WeightsError, match=r"while growing from one size to the next \(level of detail 0.25\)"):
        read(record)


# ---- What is refused ------------------------------------------------------------------------------------------------


def test_other_trees_are_left_to_others() -> None:
    for tree in (None, [], {}, (1, 2, 3), {"G": 1}, Record("torch.device"), Record("x.Network", (), {})):
        assert not matches(tree)


def test_forks_are_explained() -> None:
    G = network(tiny1(), STYLEGAN1, 3)
    joined = Record(TENSORFLOW, (), {**G.state, "num_inputs": 2})
    with pytest.raises(WeightsError, match="MSG-StyleGAN"):
        read(joined)
    D = Record(TENSORFLOW, (), {"version": 3, "variables": [("8x8/Combine/weight", torch.zeros(1))]})
    with pytest.raises(WeightsError, match="MSG-StyleGAN"):
        read((G, D, G))
    plain = Record(TENSORFLOW, (), {"version": 3, "variables": [("4x4/Dense/weight", torch.zeros(1))]})
    with pytest.raises(WeightsError, match="takes no styles: a progressive GAN"):
        read(plain)
    wide = tiny()
    wide.synthesis.b4.const = nn.Parameter(torch.zeros(8, 4, 6))
    with pytest.raises(WeightsError, match=r"not square: they grow from \[4, 6\]"):
        read(network(wide, STYLEGAN2, 4))
    for name, value in (("use_pixel_norm", True), ("use_instance_norm", False), ("fused_scale", "often")):
        with pytest.raises(WeightsError, match=f"G_ema was made with {name}={value!r}"):
            read(network(tiny1(), STYLEGAN1, 3, {name: value}))
    with pytest.raises(WeightsError, match="StyleGAN's discriminator alone"):
        read(Record(TENSORFLOW, (), {"version": 3, "variables": [], "build_func_name": "D_basic"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conv_clamp", -1.0),
        ("conv_clamp", float("nan")),
        ("mapping_lrmul", "0.01"),
        ("nonlinearity", "hardswish"),
        ("num_fp16_res", 1 << 30),
        ("resample_kernel", torch.ones(1000)),
        ("resample_kernel", ["1", 3]),
        ("resample_kernel", 3),
    ],
)
def test_arguments_out_of_range_are_said(name: str, value: Any) -> None:
    with pytest.raises(WeightsError, match=f"its G_ema was made with {name}="):
        read(network(tiny(), STYLEGAN2, 5, {name: value}))


def test_no_filter_means_nearest_neighbours() -> None:
    found = read(network(tiny(), STYLEGAN2, 4, {"resample_kernel": None})).networks["G_ema"]
    G: Any = build(found, "x.pkl").net
    assert G.init_kwargs["synthesis_kwargs"]["resample_filter"] == [1, 1]
    ws = torch.randn(1, G.num_ws, 8)
    x, img = G.synthesis.b4(None, None, ws, noise_mode="none", noise=[None], dtype=torch.float32)
    _, both = G.synthesis.b8(x, img, ws[:, 1:4], noise_mode="none", noise=[None] * 2, dtype=torch.float32)
    _, alone = G.synthesis.b8(x, None, ws[:, 1:4], noise_mode="none", noise=[None] * 2, dtype=torch.float32)
    torch.testing.assert_close(both - alone, F.interpolate(img, scale_factor=2), rtol=1e-4, atol=1e-4)


def test_whatever_is_wrong_with_variables_ends_in_one_error() -> None:
    """Each of them made another: no shape, another type, not finite, gone."""
    random = torch.Generator().manual_seed(0)
    spoils = (torch.ones(2, 3), torch.ones(()), torch.ones(0), torch.full((4,), float("nan")), 1, "x", None, [])
    for make in (lambda: network(tiny1(), STYLEGAN1, 3), lambda: network(tiny(), STYLEGAN2, 5)):
        whole = make()
        for spoil in spoils:
            part = whole.state["components"][["mapping", "synthesis"][int(torch.randint(2, [1], generator=random))]]
            variables = part.state["variables"]
            i = int(torch.randint(len(variables), [1], generator=random))
            kept, variables[i] = variables[i], (variables[i][0], spoil)
            with pytest.raises(WeightsError):
                build(read(whole).networks["G_ema"], "x.pkl")
            variables[i] = kept
        build(read(whole).networks["G_ema"], "x.pkl")


def test_damage_is_said() -> None:
    with pytest.raises(WeightsError, match="G_ema is of version 7"):
        read(network(tiny(), STYLEGAN2, 7))
    with pytest.raises(WeightsError, match="G_ema has no variables"):
        read(Record(TENSORFLOW, (), {"version": 4}))
    for part in ("components", "static_kwargs"):
        with pytest.raises(WeightsError, match=f"its {part} are a list"):
            read(Record(TENSORFLOW, (), {"version": 4, "variables": [], part: [1]}))
    with pytest.raises(WeightsError, match="a variable is not a name and a value"):
        read(Record(TENSORFLOW, (), {"version": 4, "variables": ["x"]}))
    with pytest.raises(WeightsError, match=r"level of detail is nan, with pictures of 16 px"):
        read(network(tiny1(), STYLEGAN1, 3, lod=torch.ones(3)))
    with pytest.raises(WeightsError, match="'x' is a str, not a tensor"):
        read(Record(TENSORFLOW, (), {"version": 4, "variables": [("x", "y")]}))
    record = network(tiny(), STYLEGAN2, 4)
    synthesis = record.state["components"]["synthesis"].state
    synthesis["variables"] = [pair for pair in synthesis["variables"] if pair[0] != "8x8/Conv1/mod_bias"]
    with pytest.raises(WeightsError, match="tensors are missing: 8x8/Conv1/mod_bias"):
        read(record)
