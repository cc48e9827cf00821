"""The labelling page without a browser: its rounds, its server, what it refuses; and in a real Chromium."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mien.app.labelling.desk import FEW, ROUND, LabelDesk, PairPool
from mien.app.labelling.server import WORD, LabelServer
from mien.errors import InputError, UnsupportedFileError
from mien.training.pair_features import Measured
from mien.training.pair_labels import LabelBook, load_pair_labels

NUM = 60


def write_pairs(folder: Path) -> None:
    """Two shards of pairs of one colour each: a third of the drawings is dark, those are bad."""
    for split, seeds in (("train", range(50)), ("test", range(50, NUM))):
        with tarfile.open(folder / f"{split}-000000.tar", "w") as tar:
            for seed in seeds:
                for side, light in (("source", 200), ("target", 20 if seed % 3 == 0 else 220)):
                    file = io.BytesIO()
                    PIL.Image.new("RGB", (16, 16), (light, seed, 90)).save(file, "PNG")
                    info = tarfile.TarInfo(f"seed-{seed}.{side}.png")
                    info.size = file.tell()
                    file.seek(0)
                    tar.addfile(info, file)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    write_pairs(folder)
    return folder


@pytest.fixture
def desk(pairs: Path) -> Iterator[LabelDesk]:
    with LabelBook(pairs / "labels.csv") as book:
        yield LabelDesk(PairPool(pairs, 1000), book)


def is_bad(key: str) -> bool:
    return int(key.removeprefix("seed-")) % 3 == 0


def measured(pool: PairPool) -> Measured:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(pool.keys), 4)).astype(np.float32)
    features[:, 0] = [(-1 if is_bad(key) else 1) + 0.3 * rng.normal() for key in pool.keys]
    return Measured(pool.keys, ("identity", "psi", "a", "b"), features, np.zeros((len(features), 3), np.float32))


# ---- The pool and the rounds ----------------------------------------------------------------------------------------


def test_the_pool_reads_where_files_lie(pairs: Path) -> None:
    pool, few = PairPool(pairs, 1000), PairPool(pairs, 7)
    assert len(pool.keys) == NUM and few.keys == pool.keys[:7]
    with PIL.Image.open(io.BytesIO(pool.file("seed-51", "target.png"))) as image:
        assert image.getpixel((0, 0)) == (20, 51, 90)
    assert {s["__key__"]: s["source.png"] for s in pool.samples()}["seed-3"] == pool.file("seed-3", "source.png")
    with pytest.raises(InputError, match=r"no seed-99\.target\.png"):
        pool.file("seed-99", "target.png")
    (pairs / "val-000000.tar").write_bytes(b"no tar")
    with pytest.raises(UnsupportedFileError, match=r"val-000000\.tar is damaged"):
        PairPool(pairs, 10)


def test_every_pair_is_asked_for_once(desk: LabelDesk) -> None:
    asked = []
    while (key := desk.now()["key"]) is not None:
        asked.append(key)
        desk.put(key, "skip" if len(asked) % 5 == 0 else "bad" if is_bad(key) else "good")
    assert sorted(asked) == sorted(desk.pool.keys) and desk.now()["left"] == 0
    assert desk.now()["counts"]["skip"] == NUM // 5
    with pytest.raises(InputError, match="no 'seed-99' in the pool"):
        desk.put("seed-99", "good")


def test_undo_asks_again_and_a_new_desk_goes_on(desk: LabelDesk) -> None:
    first = desk.now()["key"]
    desk.put(first, "good")
    second = desk.now()
    assert second["key"] != first and second["left"] == NUM - 1
    desk.undo()
    assert desk.now()["key"] == first and desk.now()["counts"]["good"] == 0
    desk.undo()  # nothing is left to undo
    desk.put(first, "bad", "face")
    assert LabelDesk(desk.pool, desk.book).now()["key"] != first


def test_a_judge_chooses_once_it_can(desk: LabelDesk) -> None:
    pytest.importorskip("sklearn.linear_model")
    desk.learn(measured(desk.pool))
    for _ in range(2 * ROUND):
        key = desk.now()["key"]
        desk.put(key, "bad" if is_bad(key) else "good")
    now = desk.now()
    assert min(now["counts"]["good"], now["counts"]["bad"]) >= FEW
    assert now["is_measured"] and now["auc"] > 0.9


# ---- The server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(desk: LabelDesk) -> Iterator[LabelServer]:
    with LabelServer(desk) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server: LabelServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_a_verdict_is_on_the_disk_before_the_answer(server: LabelServer) -> None:
    status, page = ask(server, "GET", "/")
    assert status == 200 and server.word.encode() in page and b"%WORD%" not in page
    key = json.loads(ask(server, "GET", "/now")[1])["key"]
    status, data = ask(server, "GET", f"/pair/{key}/target")
    assert status == 200 and data == server.desk.pool.file(key, "target.png")
    verdict = {"key": key, "label": "bad", "reason": "face"}
    status, now = ask(server, "POST", "/label", verdict, **{WORD: server.word})
    assert status == 200 and json.loads(now)["counts"]["bad"] == 1 and json.loads(now)["key"] != key
    assert load_pair_labels(server.desk.book.path).rows[key].reason == "face"
    status, now = ask(server, "POST", "/undo", {}, **{WORD: server.word})
    assert status == 200 and json.loads(now)["key"] == key and not load_pair_labels(server.desk.book.path)


def test_what_the_server_refuses(server: LabelServer) -> None:
    verdict = {"key": server.desk.pool.keys[0], "label": "good"}
    ours = {WORD: server.word}
    assert ask(server, "POST", "/label", verdict)[0] == 403
    assert ask(server, "POST", "/label", verdict, **{WORD: "guess"})[0] == 403
    assert ask(server, "POST", "/label", verdict, Host="evil.example:80", **ours)[0] == 403
    assert ask(server, "GET", "/now", Host="evil.example")[0] == 403
    for bad in (b"", b"[]", b"{", {"key": "x"}, verdict | {"label": "fine"}, verdict | {"key": "../../x"}):
        assert ask(server, "POST", "/label", bad, **ours)[0] == 400, bad
    assert ask(server, "POST", "/label", b"x" * 5000, **ours)[0] == 413
    for path in ("/nothing", "/pair/seed-99/target", "/pair/seed-1/json", "/pair/..%2F..%2Fx/source", "/pair/seed-1"):
        assert ask(server, "GET", path)[0] == 404, path
    assert ask(server, "POST", "/nothing", {}, **ours)[0] == 400
    assert not server.desk.book.path.exists()
    with pytest.raises(InputError, match="cannot listen at port"):
        LabelServer(server.desk, server.port)
    assert server.address.startswith("http://127.0.0.1:")


# ---- In a browser ---------------------------------------------------------------------------------------------------

CHROMIUM = os.environ.get("MIEN_CHROMIUM") or shutil.which("chromium") or ""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium; MIEN_CHROMIUM says where it is")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_keys_label_in_a_real_browser(server: LabelServer) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1100, "height": 760}, bypass_csp=True)
        page.set_default_timeout(60_000)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(server.address)

        def wait_for(left: int) -> str:
            page.wait_for_function(f"document.getElementById('left').textContent === '{left}' && !busy")
            return str(page.inner_text("#key"))

        shown = [wait_for(NUM)]
        for pressed, left in (("g", NUM - 1), ("2", NUM - 2), ("s", NUM - 3), ("u", NUM - 2), ("b", NUM - 3)):
            page.keyboard.press(pressed)
            shown.append(wait_for(left))
        page.get_by_role("button", name="good").first.click()
        wait_for(NUM - 4)
        assert page.evaluate("document.getElementById('target').naturalWidth") == 16
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "it fits a small screen"
        browser.close()
    held = load_pair_labels(server.desk.book.path)
    assert held.counts() == {"good": 2, "bad": 2, "skip": 0} and not wrong
    assert held.rows[shown[1]].reason == "speckled" and held.rows[shown[2]].label == "bad"
