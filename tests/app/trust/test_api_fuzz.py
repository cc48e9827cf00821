"""The plain API against requests drawn from its own description, those that fit it and those that do not."""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import PIL.Image
import pytest

pytest.importorskip("gradio", reason="needs the extra web")
pytest.importorskip("sqlalchemy", reason="needs the extra jobs")
pytestmark = pytest.mark.slow

from fastapi import FastAPI  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from mien.app.jobs.queue import Queue, open_queue  # noqa: E402
from mien.app.jobs.requests import REQUESTS  # noqa: E402
from mien.app.operations import OPERATIONS  # noqa: E402
from mien.app.settings import JobSettings, Settings, TrustSettings  # noqa: E402
from mien.app.web.api import add_api  # noqa: E402


def png() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (16, 16), "red").save(file, "PNG")
    return file.getvalue()


PICTURE = png()
SOUND: list[dict[str, Any]] = [
    {"op": "change", "operations": [{"op": "edit", "strengths": {"smile": 1.0}}]},
    {"op": "mix", "layers": [8, 9]},
    {"op": "swap"},
    {"op": "blend", "weights": [0.5, 0.5]},
    {"op": "morph"},
    {"op": "stylize"},
    {"op": "generate", "seeds": [1, 2]},
]


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    bounds = JobSettings(folder=tmp_path_factory.mktemp("queue"), max_per_user=10_000, max_waiting=10_000)
    queue = open_queue(bounds)
    yield queue
    queue.store.close()


@pytest.fixture(scope="module")
def service(queue: Queue) -> FastAPI:
    service = FastAPI(title="mien")
    add_api(service, queue, Settings(jobs=queue.settings, trust=TrustSettings(max_bytes=10_000)))
    return service


def bounds(num: int) -> Any:
    import hypothesis

    quiet = list(hypothesis.HealthCheck)
    return hypothesis.settings(
        max_examples=num, deadline=None, derandomize=True, database=None, suppress_health_check=quiet
    )


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_answers_are_as_described(service: FastAPI, mode: str) -> None:
    """Whatever is asked, the answer is one that the description has, and never a defect of the server."""
    import hypothesis

    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    from schemathesis.generation.modes import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    beyond = [positive_data_acceptance]  # a form's text must also be a request that there is
    for found in schemathesis.openapi.from_asgi("/openapi.json", service).get_all_operations():
        operation = found.ok()

        @bounds(20)
        @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
        def check(case: Any) -> None:
            case.call_and_validate(excluded_checks=beyond)

        with suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong with a text, or with nothing
            check()


def fields_of(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def test_requests_and_pictures_drawn_by_chance(service: FastAPI, queue: Queue) -> None:
    """Fields of real names with values of every kind, and damaged pictures: a job, or one clear refusal."""
    hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")
    from hypothesis import strategies as st

    leaf = st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=8)
    names = sorted({name for kind in (*REQUESTS.values(), *OPERATIONS.values()) for name in fields_of(kind)})
    value = st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*names, "op", "smile", "seed"]), inner, max_size=3)
        ),
        max_leaves=6,
    )
    change = st.fixed_dictionaries(
        {"op": st.sampled_from(sorted(OPERATIONS)) | leaf},
        optional=dict.fromkeys(names, value),
    )

    @st.composite
    def request(draw: Any) -> Any:
        """One that is sound, with up to two fields that are not."""
        asked = dict(draw(st.sampled_from(SOUND)))
        kind = REQUESTS[asked["op"]]
        asked |= draw(
            st.fixed_dictionaries({}, optional=dict.fromkeys(draw(st.permutations(fields_of(kind)))[:2], value))
        )
        if "operations" in asked and draw(st.booleans()):
            asked["operations"] = draw(st.lists(change, max_size=3))
        return asked

    broken = st.tuples(st.sampled_from([PICTURE[:40], b"", b"GIF89a"]), st.binary(max_size=20)).map(b"".join)
    picture = st.just(PICTURE) | st.just(PICTURE) | broken
    met: Counter[int] = Counter()
    client = TestClient(service)

    @bounds(80)
    @hypothesis.given(request(), st.lists(picture, max_size=2), st.text(max_size=20))
    def check(asked: Any, pictures: list[bytes], name: str) -> None:
        files = [("pictures", (name or "x", data)) for data in pictures]
        answer = client.post("/api/jobs", data={"request": json.dumps(asked)}, files=files or None)
        met[answer.status_code] += 1
        assert answer.status_code in (202, 415, 422), answer.text
        assert answer.status_code == 202 or (set(answer.json()) == {"error", "hint"} and answer.json()["error"])
        if answer.status_code == 202:
            assert client.delete(f"/api/jobs/{answer.json()['id']}").status_code == 204

    check()
    assert set(met) == {202, 415, 422}, met
    assert not list((queue.settings.folder / "pictures").glob("*/*")), "what is deleted is gone"
