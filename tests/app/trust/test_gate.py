"""What comes in is bounded before it is looked at, and decoded apart; what goes out says who made it."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL.Image import Image

from mien.app.settings import MarkSettings, Secret, TrustSettings
from mien.app.trust import sandbox
from mien.app.trust.gate import BlockedError, BlockList, admit, load_block_list, looks_of, seal, spare
from mien.app.trust.sandbox import NoDecoderError, decode_apart
from mien.errors import InputError, UnsupportedFileError
from mien.marks import Origin

BOUNDS = TrustSettings()
LIMITS: dict[str, Any] = dict(max_pixels=10_000_000, max_side_px=20_000, timeout_s=20.0, memory_mb=512)


def noise(width: int, height: int, seed: int = 0) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    return PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.BICUBIC)


def file_of(image: Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of one grey that is small as a file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# ---- In --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM"])
def test_pictures_of_every_kind_come_in(kind: str) -> None:
    image = noise(64, 48)
    data = file_of(image, kind)
    (admitted,) = admit([data], user="anna", settings=BOUNDS)
    with PIL.Image.open(io.BytesIO(data)) as opened:
        assert admitted.tobytes() == opened.convert("RGB").tobytes() and admitted.mode == "RGB"


def test_only_the_profile_comes_along() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "anna at home"
    data = file_of(noise(64, 48), "JPEG", exif=exif, icc_profile=b"a profile", comment=b"secret")
    (admitted,) = admit([data], user="anna", settings=BOUNDS)
    assert admitted.size == (48, 64), "turned as the camera says" and admitted.info == {"icc_profile": b"a profile"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"hello", "the file is no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "the file is no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the file is no picture"),
        (b"PK\x03\x04", "the file is no picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "the file"),
        (b"\xff\xd8\xff" + bytes(40), "the file"),
    ],
)
def test_what_is_no_picture(data: bytes, message: str) -> None:
    with pytest.raises(UnsupportedFileError, match=message) as err:
        admit([data], user="anna", settings=BOUNDS)
    assert err.value.hint and "/" not in err.value.message


def test_bounds_come_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.app.trust.gate.decode_apart", lambda *_, **__: pytest.fail("it was decoded"))
    data = file_of(noise(64, 48))
    with pytest.raises(InputError, match="3 pictures are too many"):
        admit([data] * 3, user="anna", settings=TrustSettings(max_pictures=2))
    with pytest.raises(UnsupportedFileError, match=r"the file is too large: 0\.0 MB"):
        admit([data], user="anna", settings=TrustSettings(max_bytes=100))
    with pytest.raises(BlockedError, match="you cannot use this service"):
        admit([data], user="mallory", settings=BOUNDS, blocked=BlockList(users=frozenset(["mallory"])))
    with pytest.raises(BlockedError, match="this picture is not changed here"):
        blocked = BlockList(files=frozenset([sha256(data).hexdigest()]))
        admit([data], user="anna", settings=BOUNDS, blocked=blocked)


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    data = bomb(12_000, 12_000)
    assert len(data) < 200_000
    with pytest.raises(UnsupportedFileError, match="too large: 12000x12000 px") as err:
        admit([data], user="anna", settings=BOUNDS)
    assert err.value.hint == "shrink the picture"
    with pytest.raises(UnsupportedFileError, match="too large: 3000x8 px"):
        decode_apart(file_of(noise(3000, 8)), **{**LIMITS, "max_side_px": 2000})


def test_a_decoder_that_wants_too_much_memory_is_stopped() -> None:
    with pytest.raises(UnsupportedFileError, match=r"memory|did not survive"):
        decode_apart(bomb(9000, 9000), **{**LIMITS, "max_pixels": 10**9, "memory_mb": 40})


CHILD = (
    "from mien.app.trust import sandbox\nimport {imports}\ndef bad(data, **_):\n    {body}\nsandbox.read_photo = bad\n"
)


def with_decoder(monkeypatch: pytest.MonkeyPatch, body: str, imports: str = "os, time, ctypes, tempfile") -> None:
    code = CHILD.format(imports=imports, body=body) + "sandbox.main()"
    real = sandbox.subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        return real([*command[:3], code, *command[4:]], **options)

    monkeypatch.setattr(sandbox.subprocess, "run", run)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.abort()", "did not survive it"),
        ("ctypes.string_at(0)", "did not survive it"),
        ("os._exit(0)", "did not survive it"),
        ("raise RuntimeError('a defect')", "did not survive it"),
        ("x = bytearray(1 << 40)", "needs too much memory"),
        ("exec('while True: pass')", "took too long"),
        ("file = tempfile.TemporaryFile(); file.write(bytes(10**6))", "did not survive it"),
        ('os.write(1, b\'{"width": 9, "height": 9, "profile": 0}\\n\' + bytes(5)); os._exit(0)', "lost its way"),
        ('os.write(1, b\'{"width": 99999, "height": 9999, "profile": 0}\\n\'); os._exit(0)', "lost its way"),
        ("os.write(1, b'[]\\n'); os._exit(0)", "lost its way"),
    ],
)
def test_a_broken_decoder_ends_alone(body: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_decoder(monkeypatch, body)
    monkeypatch.setattr(sandbox, "PATIENCE", 60.0)
    with pytest.raises(UnsupportedFileError, match=message):
        decode_apart(b"anything", **{**LIMITS, "timeout_s": 1.0})


def test_a_decoder_that_only_waits_is_not_the_picture_s_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Under load a decoder gets no time; what it has computed tells whether the picture is to blame."""
    with_decoder(monkeypatch, "time.sleep(60)")
    began_s = time.monotonic()
    with pytest.raises(NoDecoderError, match="the machine is too busy"):
        decode_apart(b"anything", **{**LIMITS, "timeout_s": 0.5})
    assert time.monotonic() - began_s < 20 and "a decoder was not done after" in caplog.text


def test_a_decoder_that_dies_once_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first process dies of nothing that anybody knows; the second one does its work."""
    real, codes = sandbox.subprocess.run, iter(["import os; print('ready', flush=True); os.abort()"])

    def run(command: list[str], **options: Any) -> Any:
        return real([*command[:3], next(codes, command[3]), *command[4:]], **options)

    monkeypatch.setattr(sandbox.subprocess, "run", run)
    image = noise(64, 48)
    assert decode_apart(file_of(image), **LIMITS).tobytes() == image.tobytes()
    assert "it is tried again" in caplog.text


@pytest.mark.parametrize(
    "body", [*(f"print('ready', flush=True); os.kill(os.getpid(), {n})" for n in (2, 9, 15)), "sys.exit(3)"]
)
def test_a_decoder_that_somebody_killed_is_not_the_picture_s_fault(
    body: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = sandbox.subprocess.run
    code = f"import os, sys; {body}"
    monkeypatch.setattr(sandbox.subprocess, "run", lambda c, **options: real([*c[:3], code, *c[4:]], **options))
    with pytest.raises(NoDecoderError, match="pictures cannot be decoded now") as err:
        decode_apart(b"anything", **LIMITS)
    assert not isinstance(err.value, InputError) and "a decoder ended with" in caplog.text


def test_a_decoder_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_BOT_TOKEN", "hunter2")
    with_decoder(monkeypatch, "raise sandbox.UnsupportedFileError('seen: ' + ' '.join(os.environ))")
    with pytest.raises(UnsupportedFileError, match="seen: ") as err:
        decode_apart(b"anything", **LIMITS)
    assert "MIEN" not in err.value.message


def test_pictures_that_look_like_blocked_ones_are_refused(tmp_path: Path) -> None:
    image = noise(300, 200)
    path = tmp_path / "blocked.txt"
    path.write_text(f"# by the operator\nlooks {looks_of(image):016x}\n\nuser tg:5   # spam\n", encoding="utf-8")
    blocked = load_block_list(path)
    assert blocked.users == {"tg:5"}
    for data in (file_of(image), file_of(image.resize((150, 100)), "JPEG", quality=60)):
        with pytest.raises(BlockedError):
            admit([data], user="anna", settings=BOUNDS, blocked=blocked)
    assert admit([file_of(noise(300, 200, seed=1))], user="anna", settings=BOUNDS, blocked=blocked)


def test_looks_are_those_of_the_definition() -> None:
    ramp = PIL.Image.fromarray(np.tile(np.arange(0, 90, 10, dtype=np.uint8), (8, 1)))
    assert looks_of(ramp) == 2**64 - 1 and looks_of(ramp.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)) == 0


@pytest.mark.parametrize("line", ["nobody", "sha256 abc", "user a b", "looks zz", "user"])
def test_a_block_list_that_cannot_be_read(line: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"user x\n{line}\n")
    with pytest.raises(InputError, match="line 2 of the block list"):
        load_block_list(tmp_path / "list")
    with pytest.raises(InputError, match="cannot read the block list"):
        load_block_list(tmp_path / "absent")


def test_the_largest_faces_are_done_and_the_others_told() -> None:
    assert spare([1, 2, 3], TrustSettings(max_faces=2)) == ([1, 2], "2 of 3 faces are done, the largest")
    assert spare([1, 2], TrustSettings(max_faces=2)) == ([1, 2], "")


# ---- Out -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("origin", list(Origin))
def test_results_say_who_made_them(kind: str, origin: Origin) -> None:
    image = noise(64, 48)
    image.info["icc_profile"] = b"a profile"
    data = seal(image, origin, MarkSettings(), kind=kind)
    assert data == seal(image, origin, MarkSettings(), kind=kind)
    with PIL.Image.open(io.BytesIO(data)) as opened:
        assert opened.info["icc_profile"] == b"a profile" and origin.uri.encode() in opened.info["xmp"]
        difference = np.abs(np.asarray(opened.convert("RGB")).astype(int) - np.asarray(image))
    assert difference.max() == 0 if kind == "png" else difference.mean() < 3


def test_visible_letters_stand_in_the_corner() -> None:
    image = PIL.Image.new("RGB", (480, 240), (90, 120, 110))
    marked = PIL.Image.open(io.BytesIO(seal(image, Origin.CHANGED, MarkSettings(visible=True))))
    changed = np.argwhere((np.asarray(marked) != np.asarray(image)).any(-1))
    assert len(changed) and changed.min(0)[0] > 200 and changed.min(0)[1] > 440
    assert np.asarray(image).std(axis=(0, 1)).max() == 0, "what was given stays"


def test_an_unknown_kind_of_file() -> None:
    with pytest.raises(InputError, match="no kind of file named 'exe'"):
        seal(noise(8, 8), Origin.CHANGED, MarkSettings(), kind="exe")


def certificate(folder: Path) -> MarkSettings:
    """An operator's certificate and the authority that made it, for tests."""
    pytest.importorskip("c2pa", reason="needs the extra c2pa")
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    names = [
        x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tests"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )
        for name in ("authority", "operator")
    ]
    made = []
    for i, (name, key) in enumerate(zip(names, keys, strict=True)):
        is_authority = i == 0
        usage = x509.KeyUsage(not is_authority, False, False, False, False, is_authority, is_authority, False, False)
        builder = x509.CertificateBuilder(names[0], name, key.public_key(), i + 1, begin, begin.replace(year=2040))
        builder = builder.add_extension(x509.BasicConstraints(is_authority, None), True).add_extension(usage, True)
        if is_authority:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        else:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
            builder = builder.add_extension(purpose, True).add_extension(issuer, False)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "chain.pem").write_bytes(made[1] + made[0])
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key = Secret(keys[1].private_bytes(*form).decode())
    return MarkSettings(c2pa_certificate=folder / "chain.pem", c2pa_key=key)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_operator_signs_what_goes_out(kind: str, tmp_path: Path) -> None:
    settings = certificate(tmp_path)
    import json

    import c2pa

    for origin in Origin:
        data = seal(noise(64, 48), origin, settings, kind=kind)
        with c2pa.Reader(f"image/{kind}", io.BytesIO(data)) as reader:
            told = json.loads(reader.json())
        assert told["validation_state"] == "Valid"
        (assertion,) = told["manifests"][told["active_manifest"]]["assertions"]
        assert assertion["data"]["actions"][0] == {"action": "c2pa.created", "digitalSourceType": origin.uri}
        assert origin.uri.encode() in data, "the XMP note is there too"
        with PIL.Image.open(io.BytesIO(data)) as opened:
            opened.load()


def test_a_certificate_that_cannot_sign(tmp_path: Path) -> None:
    settings = certificate(tmp_path)
    with pytest.raises(InputError, match="the certificate cannot sign") as err:
        seal(noise(8, 8), Origin.CHANGED, replace(settings, c2pa_key=Secret("hunter2")))
    assert "hunter2" not in str(err.value.__cause__) + err.value.message + err.value.hint
    (tmp_path / "chain.pem").unlink()
    with pytest.raises(InputError, match="cannot read the certificate"):
        seal(noise(8, 8), Origin.CHANGED, settings)


# ---- Fuzzing ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_damaged_pictures_never_do_harm() -> None:
    """Every damaged file is a picture or one clear refusal; nothing else, and in bounded time."""
    hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")
    from hypothesis import strategies as st

    kinds = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM", "ICO"]
    seeds = [file_of(noise(32, 24), kind) for kind in kinds]
    magic = [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"RIFF....WEBP",
        b"....ftypavif",
        b"P6 ",
    ]

    @hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @hypothesis.given(
        st.one_of(
            st.tuples(st.sampled_from(magic), st.binary(max_size=400)).map(b"".join),
            st.tuples(st.sampled_from(seeds), st.integers(0, 2**32), st.integers(1, 8)).map(lambda t: damage(*t)),
        )
    )
    def check(data: bytes) -> None:
        try:
            (image,) = admit([data], user="anna", settings=TrustSettings(max_pixels=10_000_000))
        except UnsupportedFileError as err:
            assert err.message and "Traceback" not in err.message
        else:
            assert image.mode == "RGB" and image.width * image.height <= 10_000_000

    check()


def damage(data: bytes, seed: int, num: int) -> bytes:
    """Flip, cut, repeat or insert bytes."""
    rng, damaged = random.Random(seed), bytearray(data)
    for _ in range(num):
        at = rng.randrange(len(damaged) or 1)
        kind = rng.randrange(4)
        if kind == 0 and damaged:
            damaged[at] = rng.randrange(256)
        elif kind == 1:
            del damaged[at:]
        elif kind == 2:
            damaged[at:at] = damaged[at : at + rng.randrange(64)]
        else:
            damaged[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x80\0\0\0"])
    return bytes(damaged)
