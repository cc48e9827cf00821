"""Commands on networks of other families, from files as their makers wrote them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.images import to_pil
from mien.latents import sample_ws, synthesize
from mien.weights.load import load_generator

pytestmark = pytest.mark.usefixtures("bundle")


@pytest.mark.parametrize("name", ["tfpkl_sg1", "tfpkl_sg2"])
def test_generate_takes_a_file_of_tensorflow(name: str, data: Path, tmp_path: Path) -> None:
    network = data / f"{name}.pkl"
    arguments = ["generate", "--network", str(network), "--seeds", "1-2", "--psi", "0.7", "--outdir", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    G = load_generator(network)
    expected = to_pil(synthesize(G, sample_ws(G, [2], truncation_psi=0.7)))[0]
    with PIL.Image.open(tmp_path / "seed2.png") as image:
        assert image.size == (32, 32)
        assert np.array_equal(np.asarray(image), np.asarray(expected))
