"""The shape of the code base: layers, public names, headers, quick imports that need no extra.

After a wanted change of public names: python tests/test_architecture.py
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = sorted((REPOSITORY / "src" / "mien").rglob("*.py"))
FROZEN = REPOSITORY / "tests" / "data" / "public_names.json"
BEHIND_DOORS = {f"mien.app.bot.{name}": "aiogram" for name in ("service", "api", "courier", "poll", "talk")}
BEHIND_DOORS |= {f"mien.app.web.{name}": "gradio" for name in ("api", "page", "parts")}
BEHIND_DOORS |= {f"mien.app.web.tabs.{name}": "gradio" for name in ("face", "drawing", "people", "more")}
EXTRAS = (
    "accelerate",
    "aiogram",
    "av",
    "c2pa",
    "cv2",
    "gradio",
    "huggingface_hub",
    "mediapipe",
    "mlflow",
    "pillow_heif",
    "psycopg",
    "ray",
    "redis",
    "sklearn",
    "sqlalchemy",
    "tensorboard",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_name(path) for path in SOURCES]


def public_names() -> dict[str, list[str]]:
    """The literal `__all__` of every module that has one, read without importing it."""
    names = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names[module_name(path)] = sorted(ast.literal_eval(node.value))
    return names


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=120, check=False)


def test_imports_go_downwards_only() -> None:
    pytest.importorskip("importlinter")
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_public_names_are_the_frozen_ones() -> None:
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    assert public_names() == frozen, "if this is wanted, run: python tests/test_architecture.py"


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_a_file_says_what_it_is_and_what_of_it_is_public(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    header = ast.get_docstring(tree)
    assert header, "the header is missing"
    assert header.splitlines()[0].endswith((".", ":")), "the header's first line is a sentence"
    if path.name == "__init__.py" and path.parent.name != "mien":
        assert len(tree.body) == 1, "a folder's __init__ holds its sentence and nothing else"
    elif path.name not in ("__init__.py", "__main__.py"):
        assert module_name(path) in public_names(), "__all__ is missing"


def test_public_things_exist_and_are_described() -> None:
    closed = {name for name, library in BEHIND_DOORS.items() if find_spec(library) is None}
    code = f"""
import importlib, inspect
for name in {[name for name in MODULES if not name.endswith("__main__") and name not in closed]!r}:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        thing = getattr(module, public)
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__ == name:
            assert inspect.getdoc(thing), f"{{name}}.{{public}} has no docstring"
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_every_module_imports_without_extras() -> None:
    """But for what stands behind a door whose library it is made of, and is opened by the door's command alone."""
    names = [name for name in MODULES if not name.endswith("__main__") and name not in BEHIND_DOORS]
    code = f"""
import importlib, sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
for name in {names!r}:
    importlib.import_module(name)
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_the_package_and_the_help_do_not_import_torch() -> None:
    assert python("import mien, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules").returncode == 0
    if "mien.app.cli" in MODULES:
        result = python("import mien.app.cli, sys; assert 'torch' not in sys.modules")
        assert result.returncode == 0, result.stderr


def test_the_version_is_told_once() -> None:
    import mien

    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1] == mien.__version__  # type: ignore[index]


@pytest.mark.parametrize("word", ["import torchvision", "from torchvision", "breakpoint(", "pdb.set_trace"])
def test_nothing_unwanted_is_left(word: str) -> None:
    guilty = [path.name for path in SOURCES if word in path.read_text(encoding="utf-8")]
    assert not guilty


if __name__ == "__main__":
    FROZEN.parent.mkdir(exist_ok=True)
    FROZEN.write_text(json.dumps(public_names(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote the public names of {len(public_names())} modules to {FROZEN}")
