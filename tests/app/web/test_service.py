"""The service around the page: its plain API, health, keys, and the visitor's language."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mien.app.jobs.queue import Queue
from mien.app.settings import Secret, Settings, WebSettings
from mien.app.studio import Studio
from mien.app.web.acts import Acts
from mien.app.web.desks import Desks
from mien.app.web.service import create_app
from mien.app.web.texts import TEXTS

from .conftest import words

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def served(*args: Any) -> FastAPI:
    """Build the service where a loop runs: Gradio would open one of its own, and never close it."""

    async def build() -> FastAPI:
        return create_app(*args)

    return asyncio.run(build())


@pytest.fixture(scope="module")
def client(desks: Desks, queue: Queue, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    service = served(desks.studio, queue, settings, tmp_path_factory.mktemp("page"))
    return TestClient(service, raise_server_exceptions=False)


def test_the_page_is_served_in_the_visitors_language(client: TestClient) -> None:
    for asked, lang in (("ru-RU,ru", "ru"), ("en-GB", "en"), ("fr", "en"), ("", "en")):
        found = client.get("/", headers={"accept-language": asked}, follow_redirects=False)
        assert found.headers["location"] == f"/{lang}/"
    assert TEXTS["tagline"][1] in client.get("/ru/config").text


def test_health_and_metrics(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    assert 'mien_jobs{state="queued"} 0' in client.get("/metrics").text
    assert "/api/jobs" in client.get("/openapi.json").json()["paths"]


def test_a_job_by_the_api(client: TestClient, face: bytes) -> None:
    request = {"op": "change", "operations": [{"op": "edit", "strengths": {"smile": 1.0}}], "method": "encoder"}
    made = client.post("/api/jobs", data={"request": json.dumps(request)}, files=[("pictures", ("../x", face))])
    assert made.status_code == 202 and made.json()["position"] == 1
    job = made.json()["id"]
    assert client.get(f"/api/jobs/{job}").json()["state"] == "queued"
    assert client.get(f"/api/jobs/{job}/results/0").status_code == 404
    assert client.post(f"/api/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    assert client.delete("/api/me").json() == {"deleted": 0}


@pytest.mark.parametrize(
    ("request_", "status"),
    [("{", 422), ("[]", 422), ('{"op": "steal"}', 422), ('{"op": "generate", "seeds": [1], "network": "x"}', 422)],
)
def test_bad_requests_are_told(client: TestClient, request_: str, status: int) -> None:
    answer = client.post("/api/jobs", data={"request": request_})
    assert answer.status_code == status and set(answer.json()) == {"error", "hint"}


def test_what_is_no_picture_is_refused(client: TestClient) -> None:
    request = json.dumps({"op": "change", "operations": [{"op": "edit", "strengths": {"smile": 1.0}}]})
    answer = client.post("/api/jobs", data={"request": request}, files=[("pictures", ("a.png", b"hello"))])
    assert answer.status_code == 415 and "no picture" in answer.json()["error"]


def test_keys(desks: Desks, queue: Queue, tmp_path: Path) -> None:
    from mien.app.web.api import add_api

    service = FastAPI()
    add_api(service, queue, Settings(web=WebSettings(api_keys=Secret("first second"))))
    client, data = TestClient(service), {"request": '{"op": "generate", "seeds": [1]}'}
    assert client.post("/api/jobs", data=data).status_code == 403
    made = client.post("/api/jobs", data=data, headers={"authorization": "Bearer first"})
    path = f"/api/jobs/{made.json()['id']}"
    assert client.get(path, headers={"authorization": "Bearer second"}).status_code == 404
    assert client.delete(path, headers={"authorization": "Bearer first"}).status_code == 204


def test_a_network_that_is_missing(queue: Queue, settings: Settings, tmp_path: Path, face: bytes) -> None:
    desks = Desks(Studio("nosuch"), settings, tmp_path)
    acts = Acts(desks, queue, "en")
    assert "nosuch" in words(list(acts.run(acts.open, "a", face)))
    served(desks.studio, queue, settings, tmp_path)
