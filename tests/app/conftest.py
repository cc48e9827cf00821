"""A bundle of tiny random networks in place of the shipped ones, and a detector that knows where drawn faces are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch
from PIL.Image import Image
from typer.testing import CliRunner, Result

from mien.app.cli import app
from mien.app.settings import DEFAULT_NETWORK, DETECTOR, FACE_NET
from mien.edits.directions import Direction, DirectionSet, save_directions
from mien.faces.detect import Face
from mien.nets.detector import Detector
from mien.nets.encoder import Encoder
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator
from mien.weights.load import save_generator, save_net, weights_digest

FIVE = np.array([[-20.0, -15], [20, -15], [0, 5], [-14, 25], [14, 25]])


def mien(*args: object, code: int = 0) -> Result:
    """Run the command line in this process; it must end with `code`."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def printed(*args: object, code: int = 0) -> str:
    """Run the command line and return its results, or what it complains of."""
    result = mien(*args, code=code)
    return result.stdout if code == 0 else result.stderr


def pixels(path: Path) -> np.ndarray:
    """The RGB values of a picture in a file."""
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def make_bundle(folder: Path, seed: int = 0) -> Path:
    """Write tiny networks under the shipped names."""
    torch.manual_seed(seed)
    kwargs = dict(channel_base=256, channel_max=8)
    G = Generator(8, 0, 8, 16, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=kwargs)
    path = folder / f"{DEFAULT_NETWORK}.safetensors"
    save_generator(G, path, use_half=True)
    digest = weights_digest(path)
    encoder = Encoder(16, G.num_ws, 8, in_resolution=16, channels=(4, 4, 4), hidden=8)
    save_net(encoder, folder / f"encoder-{DEFAULT_NETWORK}.safetensors", provenance={"network": digest})
    moves = {name: Direction(torch.randn(8), (0, 1), "1 unit", 1.0, (-3.0, 3.0)) for name in ("smile", "age", "yaw")}
    save_directions(DirectionSet(moves, digest), folder / f"directions-{DEFAULT_NETWORK}.safetensors")
    save_net(Detector(), folder / f"{DETECTOR}.safetensors")
    face_net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False)
    save_net(face_net, folder / f"{FACE_NET}.safetensors")
    return folder


@pytest.fixture(scope="session")
def tiny_nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def find_drawn(_net: object, photo: Image, **_kwargs: object) -> list[Face]:
    """Find the red discs of `draw_photo`, largest first."""
    pixels = np.asarray(photo).astype(int)
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 90)
    faces = []
    for i in range(photo.width // 100):
        ys, xs = np.nonzero(red[:, 100 * i : 100 * (i + 1)])
        if len(xs) > 20:
            centre, radius = np.array([xs.mean() + 100 * i, ys.mean()]), np.sqrt(len(xs) / np.pi)
            box = np.concatenate([centre - radius, centre + radius])
            faces.append(Face(box, centre + FIVE * radius / 40, 0.9))
    return sorted(faces, key=lambda face: -face.area_px)


def draw_photo(radii: tuple[int, ...]) -> Image:
    """A red disc for each face, one in every 100 px, on grey."""
    photo = PIL.Image.new("RGB", (max(100, 100 * len(radii)), 120), (90, 120, 110))
    pen = PIL.ImageDraw.Draw(photo)
    for i, r in enumerate(radii):
        pen.ellipse([100 * i + 50 - r, 60 - r, 100 * i + 50 + r, 60 + r], fill=(200, 60, 50))
    return photo


@pytest.fixture
def bundle(tiny_nets: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("mien.weights.load._bundle", lambda: tiny_nets)
    monkeypatch.setattr("mien.app.studio.detect", find_drawn)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_nets
    torch.set_num_threads(threads)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Two faces, the right one larger."""
    path = tmp_path / "photos" / "two.png"
    path.parent.mkdir()
    draw_photo((20, 30)).save(path)
    return path
