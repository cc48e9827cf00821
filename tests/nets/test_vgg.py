"""VGG and AlexNet: their papers' tables, torchvision's names and counts, maps by name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mien.errors import InputError
from mien.nets.vgg import CONTENT_LAYER, STYLE_LAYERS, VGG, AlexNet, normalized


def on_meta(kind: type[nn.Module], **kwargs: object) -> nn.Module:
    with torch.device("meta"):
        return kind(**kwargs)


@pytest.mark.parametrize(
    ("depth", "count", "file_bytes"), [(16, 138_357_544, 553_433_881), (19, 143_667_240, 574_673_361)]
)
def test_as_many_parameters_as_torchvision_documents(depth: int, count: int, file_bytes: int) -> None:
    net = on_meta(VGG, depth=depth, with_classifier=True)
    assert sum(p.numel() for p in net.parameters()) == count
    assert 0.9999 < 4 * count / file_bytes < 1  # the published file holds nothing else


def test_alexnet_has_the_published_shapes() -> None:
    shapes = {name: list(p.shape) for name, p in on_meta(AlexNet).named_parameters() if name.endswith("weight")}
    assert shapes == {
        "features.0.weight": [64, 3, 11, 11],
        "features.3.weight": [192, 64, 5, 5],
        "features.6.weight": [384, 192, 3, 3],
        "features.8.weight": [256, 384, 3, 3],
        "features.10.weight": [256, 256, 3, 3],
    }


def test_names_are_torchvisions() -> None:
    names = on_meta(VGG, depth=16, with_classifier=True).state_dict().keys()
    convs = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert [n for n in names if n.endswith("weight")] == [
        *(f"features.{i}.weight" for i in convs),
        *(f"classifier.{i}.weight" for i in (0, 3, 6)),
    ]
    deeper = [n for n in on_meta(VGG, depth=19).state_dict() if n.endswith("weight")]
    assert deeper[-1] == "features.34.weight"


@pytest.fixture(scope="module")
def vgg() -> VGG:
    torch.manual_seed(0)
    return VGG(depth=19).eval().requires_grad_(False)


def test_maps_are_those_of_their_names(vgg: VGG) -> None:
    img = torch.rand(1, 3, 32, 40) * 2 - 1
    x = (img / 2 + 0.5 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    before = F.conv2d(x, vgg.features[0].weight, vgg.features[0].bias, padding=1)
    conv, relu = vgg.maps(img, ["conv1_1", "relu1_1"])
    torch.testing.assert_close(conv, before)
    torch.testing.assert_close(relu, before.clamp(min=0))
    second = F.relu(F.conv2d(relu, vgg.features[2].weight, vgg.features[2].bias, padding=1))
    torch.testing.assert_close(vgg.maps(img, ["pool1"])[0], F.max_pool2d(second, 2))


def test_maps_come_in_the_order_that_was_asked(vgg: VGG) -> None:
    maps = vgg.maps(torch.zeros(2, 3, 32, 32), [*STYLE_LAYERS, CONTENT_LAYER])
    assert [list(m.shape) for m in maps] == [
        [2, 64, 32, 32],
        [2, 128, 16, 16],
        [2, 256, 8, 8],
        [2, 512, 4, 4],
        [2, 512, 2, 2],
        [2, 512, 4, 4],
    ]
    assert [m.shape[1] for m in vgg.maps(torch.zeros(1, 3, 32, 32))] == [64, 128, 256, 512, 512]


def test_average_pooling_differs_only_after_the_first_block(vgg: VGG) -> None:
    soft = VGG(depth=19, pooling="avg").eval()
    soft.load_state_dict(vgg.state_dict())
    img = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(soft.maps(img, ["relu1_2"]), vgg.maps(img, ["relu1_2"]))
    assert not torch.allclose(soft.maps(img, ["relu2_1"])[0], vgg.maps(img, ["relu2_1"])[0])


def test_alexnets_maps() -> None:
    maps = AlexNet().maps(torch.zeros(1, 3, 64, 64))
    assert [list(m.shape[1:]) for m in maps] == [[64, 15, 15], [192, 7, 7], [384, 3, 3], [256, 3, 3], [256, 3, 3]]
    assert AlexNet().maps(torch.zeros(1, 3, 31, 31))[4].shape[-1] == 1


def test_normalised_as_lpips_scales() -> None:
    """Its published constants, which are ImageNet's to three digits."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    img = torch.rand(2, 3, 4, 4) * 2 - 1
    torch.testing.assert_close(
        normalized(img), (img - shift[:, None, None]) / scale[:, None, None], atol=1e-6, rtol=1e-6
    )


def test_what_cannot_be_done_is_said(vgg: VGG) -> None:
    with pytest.raises(InputError, match="no layer 'relu6_1'"):
        vgg.maps(torch.zeros(1, 3, 32, 32), ["relu6_1"])
    with pytest.raises(InputError, match="at least 32 px"):
        vgg.maps(torch.zeros(1, 3, 31, 64))
    with pytest.raises(InputError, match=r"must be \[N, 3, H, W\]"):
        vgg.maps(torch.zeros(1, 1, 32, 32))
    with pytest.raises(InputError, match="no full layers"):
        vgg.describe(torch.zeros(1, 3, 224, 224))
    with pytest.raises(InputError, match="no VGG of depth 11"):
        VGG(depth=11)
