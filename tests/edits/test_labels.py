"""Tables of labels: empty, filled in by a spreadsheet, read again; anything else is one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mien.edits.labels import blank_labels, load_labels, save_labels
from mien.errors import InputError

NETWORK = "ab" * 32


def test_round_trip_of_an_empty_and_a_filled_table(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    blank = blank_labels(NETWORK, 0.7, [3, 4, 9], ["glasses", "dark_hair"])
    save_labels(blank, path)
    assert path.read_text() == f"# mien labels, network {NETWORK}, psi 0.7\nseed,glasses,dark_hair\n3,,\n4,,\n9,,\n"
    path.write_text(path.read_text().replace("3,,", "3,1,0.5").replace("9,,", "9,0,"))
    found = load_labels(path)
    assert (found.network, found.truncation_psi, found.seeds) == (NETWORK, 0.7, (3, 4, 9))
    torch.testing.assert_close(found["glasses"], torch.tensor([1, torch.nan, 0]).double(), equal_nan=True)
    torch.testing.assert_close(found["dark_hair"], torch.tensor([0.5, torch.nan, torch.nan]).double(), equal_nan=True)
    save_labels(found, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == path.read_text()
    with pytest.raises(InputError, match="no labels named 'hat'"):
        found["hat"]


def test_a_spreadsheet_may_have_written_it(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(f"\ufeff# mien labels, network {NETWORK}, psi 1,\r\nseed,hat\r\n1,1\r\n,\r\n2,0\r\n".encode())
    assert load_labels(path).seeds == (1, 2)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("seed,hat\n1,maybe\n", "line 3: 'maybe' is no label"),
        ("seed,hat\n1,inf\n", "'inf' is no label"),
        ("seed,hat\n1,1\n1\n", "line 4: not a seed and 1 labels"),
        ("seed,hat\n-1,1\n", "not a seed"),
        ("seed,hat\n", "is no table of labels"),
        ("hat\n1\n", "is no table of labels"),
        ("seed,Hat!\n1,1\n", "'Hat!' is no name for a label"),
    ],
)
def test_what_is_no_label_is_refused(tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"# mien labels, network {NETWORK}, psi 1\n{body}")
    with pytest.raises(InputError, match=message):
        load_labels(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    for content in (b"", b"seed,hat\n1,1\n", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"no table of labels|cannot read the labels"):
            load_labels(path)
    with pytest.raises(InputError, match="cannot read the labels"):
        load_labels(tmp_path / "none.csv")
    with pytest.raises(InputError, match="labels need names"):
        blank_labels(NETWORK, 1, [1], ["hat", "hat"])
