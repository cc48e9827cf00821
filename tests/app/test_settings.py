"""An operator's settings: TOML, variables over it, secrets from nowhere else."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest

from mien.app.settings import JobSettings, MarkSettings, Secret, Settings, load_settings, read_secret
from mien.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(env={})
    assert settings.trust == Settings().trust and not settings.jobs.url and settings.jobs.max_waiting == 200


def test_a_file_and_variables_which_win(tmp_path: Path) -> None:
    toml = write(tmp_path / "m.toml", '[jobs]\nmax_waiting = 5\nlease_s = 7\nfolder = "/q"\n[marks]\nvisible = true\n')
    settings = load_settings(env={"MIEN_CONFIG": str(toml), "MIEN_JOBS_MAX_WAITING": "9", "MIEN_CACHE": "/x"})
    assert (settings.jobs.max_waiting, settings.jobs.lease_s, settings.jobs.folder) == (9, 7.0, Path("/q"))
    assert settings.marks.visible
    assert load_settings(toml, env={"MIEN_MARKS_VISIBLE": "no"}).marks.visible is False


def test_the_file_where_the_service_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mien.toml", "[trust]\nmax_faces = 3\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings(env={}).trust.max_faces == 3


@pytest.mark.parametrize(
    ("toml", "env", "message"),
    [
        ("[jobs]\nmax_wating = 5\n", {}, "there is no setting max_wating in [jobs]"),
        ("[job]\nx = 1\n", {}, "there are no settings [job]"),
        ("jobs = 1\n", {}, "there are no settings [jobs]"),
        ("", {"MIEN_TRUST_MAX_FACE": "1"}, "there is no setting MIEN_TRUST_MAX_FACE"),
        ("", {"MIEN_TRUST_MAX_FACES": "many"}, "MIEN_TRUST_MAX_FACES is not a whole number"),
        ("[trust]\nmax_faces = true\n", {}, "max_faces in [trust] is not a whole number"),
        ("[trust]\nmax_faces = 0\n", {}, "max_faces = 0 is too small"),
        ("[jobs]\nlease_s = nan\n", {}, "lease_s in [jobs] is not a number"),
        ("[marks]\nvisible = 1\n", {}, "visible in [marks] is not true or false"),
        ("[marks]\nvisible_text = 5\n", {}, "visible_text in [marks] is not text"),
        ("[marks]\nvisible_text = ''\n", {}, "visible_text is empty or too long"),
        ("[marks]\nc2pa_certificate = 'x.pem'\n", {}, "c2pa_certificate has no key"),
        ("[jobs]\nurl = 'redis://:hunter2@host'\n", {}, "url in [jobs] is a secret"),
        ("[marks]\nc2pa_key = 'hunter2'\n", {}, "c2pa_key in [marks] is a secret"),
        ("hunter2", {}, "is no TOML"),
    ],
)
def test_what_is_wrong_is_said(toml: str, env: dict[str, str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", toml)
    with pytest.raises(InputError) as err:
        load_settings(path, env=env)
    assert message in err.value.message and err.value.hint
    assert "hunter2" not in "".join(traceback.format_exception(err.value, chain=True)).replace(toml, "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the settings"):
        load_settings(tmp_path / "absent.toml", env={})


def test_secrets_are_shown_nowhere() -> None:
    secret = Secret("hunter2")
    settings = JobSettings(url=secret)
    assert settings.url.reveal() == "hunter2" and bool(secret) and not Secret()
    for text in (repr(settings), str(secret), f"{secret}", repr(MarkSettings(c2pa_key=secret)), repr([secret])):
        assert "hunter2" not in text and "***" in text
    with pytest.raises(TypeError, match="not written down"):
        pickle.dumps(secret)
    assert not hasattr(secret, "__dict__")


def test_a_secret_from_a_file_with_tight_rights(tmp_path: Path) -> None:
    path = write(tmp_path / "key", "hunter2\n")
    path.chmod(0o600)
    settings = load_settings(write(tmp_path / "m.toml", f"[jobs]\nurl_file = '{path}'\n"), env={})
    assert settings.jobs.url.reveal() == "hunter2"
    assert load_settings(env={"MIEN_JOBS_URL_FILE": str(path)}).jobs.url.reveal() == "hunter2"
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(InputError, match="others may read the secret"):
            read_secret(path)
    with pytest.raises(InputError, match="cannot read the secret"):
        read_secret(tmp_path / "absent")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(0o600)
    with pytest.raises(InputError, match="holds no text"):
        read_secret(binary)


def test_a_variable_wins_over_a_secret_s_file(tmp_path: Path) -> None:
    path = write(tmp_path / "key", "redis://file")
    path.chmod(0o600)
    toml = write(tmp_path / "m.toml", f"[jobs]\nurl_file = '{path}'\n")
    assert load_settings(toml, env={"MIEN_JOBS_URL": "redis://variable"}).jobs.url.reveal() == "redis://variable"
