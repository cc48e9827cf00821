"""`mien lab`: people found in a folder, bad ones told, every figure and number there, and nothing done twice."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.lab.people import group, read_people
from mien.app.lab.report import STAGES
from mien.app.lab.work import LabConfig
from mien.app.studio import Studio
from mien.app.terminal.items import Failures
from mien.errors import InputError

from ..conftest import draw_photo

QUICK = ("--method", "encoder", "--cycles", "0", "--edit-steps", "1", "--blends", "2", "--frames", "2", "--aligned")


def draw(path: Path, seed: int) -> None:
    pixels = np.random.RandomState(seed).randint(60, 190, (4, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).resize((64, 64), PIL.Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Three people: two photos in a folder, two by their names, one of one photo."""
    folder = tmp_path / "people"
    for i, name in enumerate(("anna/1", "anna/2", "bert_1", "bert-2", "cleo & co")):
        draw(folder / f"{name}.png", i)
    return folder


@pytest.fixture
def pair(people: Path) -> Path:
    """Two people."""
    for path in people.glob("bert*"):
        path.unlink()
    return people


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["lab", *map(str, arguments)])
    assert "unexpected error" not in result.output
    return result.exit_code, " ".join(result.output.split())


def names(groups: dict[str, list[Path]]) -> dict[str, list[str]]:
    return {name: [path.name for path in paths] for name, paths in groups.items()}


class Links(HTMLParser):
    """The files that a page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = [value for name, value in attrs if name in ("src", "href") and value]
        self.files += [unquote(value) for value in found if not value.startswith("#")]


# ---- Who is in a folder


def test_people_by_folder_and_by_name(people: Path) -> None:
    failures = Failures()
    assert names(group(people, failures)) == {
        "anna": ["1.png", "2.png"],
        "bert": ["bert-2.png", "bert_1.png"],
        "cleo & co": ["cleo & co.png"],
    }
    assert not failures.of


def test_files_of_one_name_are_people_each(tmp_path: Path) -> None:
    for i in range(3):
        draw(tmp_path / f"IMG_{i}.png", i)
    assert list(group(tmp_path, Failures())) == ["IMG_0", "IMG_1", "IMG_2"]


def test_twins_of_names_are_told_and_the_first_has_it(people: Path) -> None:
    draw(people / "anna" / "1.webp", 9)
    draw(people / "Cleo - co" / "x.png", 10)
    (people / "nobody").mkdir()
    failures = Failures()
    groups = group(people, failures)
    assert names(groups)["anna"] == ["1.png", "2.png"]
    said = [err.message for err in failures.of.values()]
    assert any("1.webp has the name of 1.png" in text for text in said)
    assert any("are both people named cleo" in text.lower() for text in said)
    assert any("no photos in" in text for text in said)
    assert sorted(groups) == ["Cleo - co", "anna", "bert"]


def test_no_folder_and_nobody(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder at"):
        group(tmp_path / "nowhere", Failures())
    with pytest.raises(InputError, match="no photos of people in"):
        group(tmp_path, Failures())


def test_bad_photos_are_told_and_the_rest_goes_on(bundle: Path, people: Path) -> None:
    (people / "anna" / "broken.jpg").write_text("no picture")
    (people / "anna" / "wide.png").write_bytes(b"")
    shutil.copy(people / "bert_1.png", people / "anna" / "copy.png")
    failures = Failures()
    found = read_people(Studio(), people, failures, aligned=True, most=2)
    assert [(someone.name, len(someone.photos)) for someone in found] == [("anna", 2), ("bert", 1), ("cleo & co", 1)]
    said = " | ".join(err.message for err in failures.of.values())
    assert "broken.jpg is not a picture" in said and "is the same picture as" in said and "wide.png is empty" in said


def test_the_most_frontal_photo_is_the_best(bundle: Path, people: Path) -> None:
    for someone in read_people(Studio(), people, Failures(), aligned=True):
        turns = [abs(photo.yaw_deg) + abs(photo.pitch_deg) for photo in someone.photos]
        assert turns == sorted(turns) and someone.best is someone.photos[0]


def test_photos_without_a_face(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    draw_photo((25,)).save(tmp_path / "people" / "anna.png")
    draw_photo(()).save(tmp_path / "people" / "cat.png")
    failures = Failures()
    assert [someone.name for someone in read_people(Studio(), tmp_path / "people", failures)] == ["anna"]
    assert "no face found in cat.png" in next(iter(failures.of.values())).message
    (tmp_path / "people" / "anna.png").unlink()
    with pytest.raises(InputError, match="shows nobody's face"):
        read_people(Studio(), tmp_path / "people", Failures())


# ---- The report


def test_every_figure_and_number_is_there_and_nothing_is_done_twice(
    bundle: Path, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pair / "broken.jpg").write_text("no picture")
    out = tmp_path / "report"
    code, said = run(pair, "--out", out, *QUICK)
    assert code == 3 and "broken.jpg" in said and "cleo & co has one photo" in said
    report = json.loads((out / "report.json").read_text())
    assert len(report["figures"]) == len(STAGES)
    assert report["making"]["weights"].keys() >= {"faces-64.safetensors", "encoder-faces-64.safetensors"}
    assert report["making"]["seed"] == 0 and report["making"]["inversion"]["start"] == "encoder"
    assert report["figures"]["projections"]["people"]["anna"]["1.png"].keys() >= {"mse", "perceptual", "identity"}
    assert set(report["figures"]["styles"]["identity_kept"]["anna"]) == {"seed5", "seed8", "seed12"}
    assert set(report["figures"]["expressions"]["missing"]["anna"]) == {"happiness", "surprise", "anger"}
    assert set(report["figures"]["swaps"]["pairs"]["anna"]) == {"cleo & co"}
    blends = report["figures"]["blends"]["blends"]
    assert len(blends) == 3 and blends[0]["weights"] == pytest.approx(dict.fromkeys(("anna", "cleo & co"), 1 / 2))
    assert all(sum(blend["weights"].values()) == pytest.approx(1, abs=0.02) for blend in blends)
    assert report["failures"][0]["error"] == "broken.jpg is not a picture that mien can read"

    text = (out / "index.html").read_text()
    links = Links()
    links.feed(text)
    assert len(links.files) > 40
    assert not [file for file in links.files if not (out / file).is_file()]
    assert "cleo &amp; co" in text and "cleo & co" not in text
    assert not re.search(r"<script|https?://|/tmp/", text)
    for key in ("people", "projections", "styles", "expressions", "swaps", "blends", "morphs"):
        with PIL.Image.open(out / "figures" / f"{key}.png") as sheet:
            assert sheet.width > 300 and sheet.height > 300

    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")}
    (out / "projections" / "anna" / "2.png").unlink()
    (out / "index.html").unlink()
    asked: list[int] = []
    real = Studio.invert
    monkeypatch.setattr(Studio, "invert", lambda self, img, **k: asked.append(len(img)) or real(self, img, **k))
    for name in ("studio.Studio.express", "studio.Studio.swap", "lab.pairs.facespace.fit"):
        monkeypatch.setattr(f"mien.app.{name}", lambda *_args, **_kwargs: pytest.fail("it was done again"))
    assert run(pair, "--out", out, *QUICK)[0] == 3
    assert asked == [1]
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")} == before
    assert json.loads((out / "report.json").read_text())["figures"] == report["figures"]
    assert (out / "index.html").read_text() == text


@pytest.mark.slow
def test_other_settings_are_made_anew(bundle: Path, pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    code, said = run(pair, "--out", out, *QUICK)
    assert code == 0, said
    kept = (out / "facespace.safetensors").stat().st_mtime_ns
    assert run(pair, "--out", out, *QUICK, "--seed", "3")[0] == 0
    assert (out / "facespace.safetensors").stat().st_mtime_ns > kept
    assert json.loads((out / "report.json").read_text())["making"]["seed"] == 3


def test_one_person_alone(bundle: Path, tmp_path: Path) -> None:
    draw(tmp_path / "people" / "anna.png", 0)
    code, said = run(tmp_path / "people", "--out", tmp_path / "report", *QUICK)
    assert code == 0 and "blends left out: there is one person alone" in said
    assert "This figure needs two" in (tmp_path / "report" / "index.html").read_text().replace(
        "this figure", "This figure"
    )


def test_wrong_use_is_one_clear_error(bundle: Path, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert "no method named 'magic'" in run(people, "--out", out, "--method", "magic")[1]
    code, said = run(tmp_path / "nowhere", "--out", out, *QUICK)
    assert code == 2 and "no folder at" in said
    code, said = run(people, "--out", out, "--style", "a/x.png", "--style", "b/x.png", *QUICK)
    assert code == 2 and "two pictures have the name x" in said
    assert not out.exists()
    with pytest.raises(InputError, match="frames from 2"):
        LabConfig(frames=1)
