"""What the documents name is there: files and folders by their paths, modules, and names in modules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "src" / "mien"
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
ARCHITECTURE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = r"(app|nets|weights|training|edits|tests|bench|scripts|src)"
PLACES = (REPOSITORY, PACKAGE, PACKAGE / "app")


def blocks(text: str) -> list[str]:
    return re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)


def in_code(text: str) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def layers(named: str) -> list[list[str]]:
    """A list of layers as pyproject.toml has it, without those that are not there."""
    contract = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").split(f'containers = ["{named}"]')[1]
    lines = re.findall(r'^    "(.*)",$', contract.partition("\n]\n")[0], flags=re.MULTILINE)
    folder = REPOSITORY / "src" / named.replace(".", "/")
    found = [re.sub(r"[()]", "", line).split(" | ") for line in lines]
    return [[name for name in row if list(folder.glob(f"{name}*"))] for row in found]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    assert not [link for link in links if not (document.parent / link).exists()]
    paths = [
        path
        for path in in_code(text)
        if re.fullmatch(r"(app|nets|weights|training|edits|tests|bench|scripts|src)/[\w./]*", path)
    ]
    assert not [path for path in paths if not any((place / path).exists() for place in PLACES)]


def test_the_map_shows_every_file_and_folder_of_the_package() -> None:
    package, application = (block for block in blocks(ARCHITECTURE) if block.startswith("src/mien/"))
    for block, folder in ((package, PACKAGE), (application, PACKAGE / "app")):
        shown = set(re.findall(r"^  (\w+(?:\.py|/)) ", block, flags=re.MULTILINE))
        there = {path.name for path in folder.glob("*.py")}
        there |= {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
        assert shown - {"bundle/"} == there - {"__init__.py"}
    assert (PACKAGE / "bundle").is_dir()


@pytest.mark.parametrize("container", ["mien", "mien.app"])
def test_the_layers_are_those_that_are_checked(container: str) -> None:
    shown = [[line.split(", ") for line in block.splitlines()] for block in blocks(ARCHITECTURE)]
    assert layers(container) in shown


def names_of(path: Path) -> set[str]:
    """`module.name` of all that a module defines or exports, and `Class.name` of its classes' methods."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(f"{path.stem}.{node.name}")
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {f"{path.stem}.{target.id}" for target in targets if isinstance(target, ast.Name)}
            if ast.unparse(targets[0]) == "__all__" and node.value is not None:
                found |= {f"{path.stem}.{name}" for name in ast.literal_eval(node.value)}
    return found


def test_names_in_modules_are_there() -> None:
    known = set().union(*(names_of(path) for path in PACKAGE.rglob("*.py")))
    known |= {f"{path.parent.name}.{path.stem}" for path in PACKAGE.rglob("*.py")}
    owners = {name.partition(".")[0] for name in known}
    dotted = {name for name in in_code(ARCHITECTURE) if re.fullmatch(r"[A-Za-z]\w*\.[A-Za-z]\w+", name)}
    named = {name for name in dotted if name.partition(".")[0] in owners and not name.endswith(".py")}
    assert len(named) > 15
    assert not named - known
