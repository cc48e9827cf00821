"""The example notebooks run from top to bottom with the networks that are shipped, and keep no pictures in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL = """seeds = {"Ada": 3, "Ben & Co": 17}
poses = (0.0, 1.0)
steps = edit_steps = 1
cycles = 0
frames = 2
outdir = "lab"
"""


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_results_are_kept(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells and all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_is_imported_is_there(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
    wanted = [line for line in lines if line.startswith(("from mien", "import mien"))]
    assert wanted
    exec("\n".join(wanted), {})


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.filterwarnings("default")
def test_the_lab_runs_on_small_settings(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs the development group")
    nbclient = pytest.importorskip("nbclient", reason="needs the development group")
    notebook = nbformat.read(EXAMPLES / "lab.ipynb", as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    names = {line.partition(" =")[0] for line in parameters.source.splitlines()}
    assert names == {"seeds", "poses", "steps", "edit_steps", "cycles", "frames", "outdir"}
    parameters.source = SMALL
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert sum("image/png" in out.get("data", {}) for out in shown) >= 8
    assert (tmp_path / "lab" / "report" / "index.html").is_file()
    assert json.loads((tmp_path / "lab" / "report" / "report.json").read_text())["failures"] == []
