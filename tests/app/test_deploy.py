"""The image and the services: their files are sound, and each service starts by its command, works, and ends well."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.settings import load_settings

yaml = pytest.importorskip("yaml", reason="needs PyYAML")

REPOSITORY = Path(__file__).resolve().parents[2]
OURS = ("web", "worker", "bot")
MIEN = [sys.executable, "-c", "from mien.app.cli import main; main()"]
ESCAPE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def composed() -> dict[str, Any]:
    """compose.yaml with the defaults of its variables."""
    text = (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(ESCAPE.sub(r"\2", text)))


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, instruction by instruction, without comments."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines.splitlines() if line]


def args_of() -> dict[str, str]:
    return dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG" and "=" in rest)


# ---- The files -------------------------------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say() -> None:
    found = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("no hadolint")
    told = subprocess.run([found, str(REPOSITORY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


def test_compose_is_as_its_specification_says() -> None:
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("no check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


def test_services_are_bounded_and_have_no_rights() -> None:
    services = composed()["services"]
    assert set(services) == {*OURS, "redis", "mlflow"}
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"mem_limit", "cpus", "pids_limit", "logging", "networks"} <= set(service), name
        assert name == "web" or "healthcheck" in service, "that of the image is the page's"
        assert not [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")], name
    assert services["redis"]["networks"] == services["worker"]["networks"] == ["inside"]
    assert composed()["networks"]["inside"] == {"internal": True}


def test_services_have_secrets_as_files_and_settings_that_exist() -> None:
    for name in OURS:
        service = composed()["services"][name]
        told = {key: str(value) for key, value in service["environment"].items() if key.startswith("MIEN_")}
        secrets = {key for key in told if key.endswith("_FILE")}
        assert {Path(told[key]).name for key in secrets} == set(service.get("secrets", ()))
        settings = load_settings(env={key: value for key, value in told.items() if key not in secrets})
        assert settings.jobs.url.reveal() == "redis://redis:6379/0" and not settings.bot.token
        drain_s = settings.bot.drain_s if name == "bot" else settings.jobs.drain_s if name == "worker" else 5
        assert float(service["stop_grace_period"].removesuffix("s")) > drain_s + 20
    assert "secrets/" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_image_has_no_rights_and_a_health_check() -> None:
    found = instructions()
    kinds = [name for name, _ in found]
    users = [rest for name, rest in found if name == "USER"]
    assert users == ["10001:10001"] and kinds.index("USER") < kinds.index("ENTRYPOINT")
    assert "/healthz" in next(rest for name, rest in found if name == "HEALTHCHECK")
    assert json.loads(next(rest for name, rest in found if name == "ENTRYPOINT")) == ["mien"]
    assert not [rest for name, rest in found if name in ("ENV", "ARG") and re.search("TOKEN|KEY|SECRET|PASS", rest)]


def test_pytorch_is_the_first_layer_and_of_the_cpu() -> None:
    runs = [rest for name, rest in instructions() if name == "RUN"]
    assert 'pip install "torch==${TORCH}" --index-url "${TORCH_INDEX}"' in runs[0] and ".[" in runs[1]
    args, makefile = args_of(), (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert args["TORCH_INDEX"].endswith("/whl/cpu") and f"TORCH ?= {args['TORCH']}\n" in makefile
    extras = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", extras, re.MULTILINE) for extra in args["EXTRAS"].split(","))


def test_only_what_is_copied_comes_near_the_image() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    first, *rest = [line for line in lines if line and not line.startswith("#")]
    allowed = {line.removeprefix("!") for line in rest if line.startswith("!")}
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")]
    assert first == "*" and {source for sources in copied for source in sources} == allowed


def test_health_of_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlalchemy", reason="needs the extra jobs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIEN_JOBS_FOLDER", str(tmp_path / "queue"))
    well = CliRunner().invoke(app, ["jobs", "health", "--workers", "0"])
    assert well.exit_code == 0 and "queued 0" in well.output
    ill = CliRunner().invoke(app, ["jobs", "health"])
    assert ill.exit_code == 1 and "0 of 1 workers live" in ill.output


# ---- The services, started by hand -----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(what: Callable[[], Any], timeout_s: float = 120.0) -> Any:
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            if found := what():
                return found
        except OSError:
            pass
        assert time.monotonic() < until_s, "it does not happen"
        time.sleep(0.3)


def get(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


@contextmanager
def started(command: list[str], env: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service, and ask it to end as Docker does."""
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log)
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGTERM)
        finally:
            process.kill()
            process.wait()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """The queue's database by its command, and its address."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    port, command = free_port(), [str(word) for word in composed()["services"]["redis"]["command"]]
    with started([*command, "--port", str(port), "--dir", str(folder)], dict(os.environ), folder):
        wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
        yield f"redis://127.0.0.1:{port}/0"


def service_of(name: str, mien: list[str], url: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command and the variables of a service, with this machine's addresses."""
    service = composed()["services"][name]
    told = {key: str(value) for key, value in service["environment"].items()}
    told |= {"MIEN_JOBS_URL": url, "MIEN_JOBS_FOLDER": str(folder / "state"), "OMP_NUM_THREADS": "1"}
    return [*mien, *map(str, service["command"])], os.environ | told


def serve(mien: list[str], folder: Path, *, with_bot: bool) -> None:
    """Start Redis, worker, page and bot by their commands; a job goes through all of them."""
    port = free_port()
    with redis(folder) as url:
        worker, env = service_of("worker", mien, url, folder)
        web = [str(port) if word == "7860" else word for word in service_of("web", mien, url, folder)[0]]
        health = [*mien, *composed()["services"]["worker"]["healthcheck"]["test"][2:]]
        with started(worker, env, folder), started(web, env, folder):
            base = f"http://127.0.0.1:{port}"
            wait_for(lambda: json.loads(get(f"{base}/healthz"))["workers"] == 1, 240)
            subprocess.run(health, env=env, check=True, timeout=60)
            asked = Request(f"{base}/api/jobs", b"request=" + json.dumps({"op": "generate", "seeds": [1]}).encode())
            with urlopen(asked, timeout=30) as answer:
                job = json.loads(answer.read())["id"]
            wait_for(lambda: json.loads(get(f"{base}/api/jobs/{job}"))["state"] == "done")
            with urlopen(f"{base}/api/jobs/{job}/results/0", timeout=30) as answer:
                assert answer.read(4) == b"\x89PNG"
            assert 'mien_jobs{state="done"} 1' in get(f"{base}/metrics")
            if with_bot:
                talk(mien, url, folder)


def talk(mien: list[str], url: str, folder: Path) -> None:
    """Start the bot by its command, with its token in a file, and ask it something."""
    pytest.importorskip("aiogram", reason="needs the extra bot")
    from .bot.telegram import TOKEN, Telegram

    secret = folder / "bot_token"
    secret.write_text(TOKEN)
    secret.chmod(0o600)
    with Telegram() as telegram:
        command, env = service_of("bot", mien, url, folder)
        env |= {"MIEN_BOT_TOKEN_FILE": str(secret), "MIEN_BOT_API_URL": telegram.url}
        with started(command, env, folder):
            telegram.write(7, text="/help")
            wait_for(lambda: telegram.of_bot(7))
        assert TOKEN not in (folder / "log").read_text(errors="replace")


@pytest.mark.slow
def test_every_service_starts_by_its_command(tmp_path: Path) -> None:
    for library in ("gradio", "redis", "sqlalchemy"):
        pytest.importorskip(library, reason="needs the extra web")
    serve(MIEN, tmp_path, with_bot=True)


@pytest.mark.slow
def test_mlflow_starts_by_its_command(tmp_path: Path) -> None:
    try:
        importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mlflow-skinny has no server")
    port = str(free_port())
    words = [str(word) for word in composed()["services"]["mlflow"]["command"][1:]]
    words = [word.replace("/data", str(tmp_path)).replace("5000", port) for word in words]
    with started([sys.executable, "-m", "mlflow", *words], dict(os.environ), tmp_path):
        wait_for(lambda: get(f"http://127.0.0.1:{port}/health") == "OK")
        named = Request(f"http://127.0.0.1:{port}/version", headers={"Host": f"mlflow:{port}"})
        with urlopen(named, timeout=10) as answer:
            assert answer.read()[:1] == b"3"


@pytest.mark.network
@pytest.mark.timeout(1800)
def test_the_steps_of_the_image_in_a_bare_environment(tmp_path: Path) -> None:
    """Without a container engine: each RUN and COPY of the Dockerfile by hand, then the services out of what it made.

    MIEN_TORCH_INDEX names another index where the one of PyTorch cannot be reached.
    """
    places = {"/opt/mien": tmp_path / "venv", "/dist": tmp_path / "dist", "/build": tmp_path / "build"}
    args = args_of() | {"TORCH_INDEX": os.environ.get("MIEN_TORCH_INDEX", args_of()["TORCH_INDEX"])}
    env = os.environ | args | {"PATH": f"{places['/opt/mien']}/bin{os.pathsep}{os.environ['PATH']}"}
    build = places["/build"]
    for name, rest in instructions():
        if name == "FROM":
            shutil.rmtree(build, ignore_errors=True)
            build.mkdir()
        elif name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy
                copy(REPOSITORY / source, build / source)
        elif name == "RUN" and "useradd" not in rest:
            step = re.sub(r"--mount=\S+", "", rest)
            for inside, outside in places.items():
                step = step.replace(f" {inside}", f" {outside}")
            subprocess.run(["sh", "-ec", step], cwd=build, env=env, check=True)
    serve([str(places["/opt/mien"] / "bin" / "mien")], tmp_path, with_bot=True)
