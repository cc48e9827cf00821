"""What the doors have in common before any network is loaded: names, choices, defaults, and an operator's settings.

Settings come from a TOML file (`MIEN_CONFIG`, else `mien.toml` where the service starts) and from variables
`MIEN_<SECTION>_<NAME>`, which win. Secrets come from variables alone, or from a file that only its owner may read and
that `<name>_file` names; they are `Secret`s, which no log, traceback or report shows. Imports nothing heavy.
"""

from __future__ import annotations

import math
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from mien.errors import InputError
from mien.nets.generator import NOISE_MODES
from mien.nets.precision import PRECISIONS

__all__ = [
    "DEFAULT_NETWORK",
    "DEFAULT_STYLE",
    "DETECTOR",
    "DEVICES",
    "FACE_MOTION",
    "FACE_NET",
    "NOISE_MODES",
    "PRECISIONS",
    "BotSettings",
    "JobSettings",
    "MarkSettings",
    "Secret",
    "Settings",
    "TrustSettings",
    "WebSettings",
    "load_settings",
    "read_secret",
]

DEFAULT_NETWORK = "faces-64"
"""The generator that is used when none is named."""

DEFAULT_STYLE = "toon-128"
"""Who draws when nobody is named."""

DETECTOR, FACE_NET, FACE_MOTION = "detector", "face-features", "face-motion"
"""Names of the bundled networks that find and read faces."""

DEVICES = ("auto", "cpu", "cuda", "mps")

CONFIG, PREFIX, DEFAULT_FILE = "MIEN_CONFIG", "MIEN_", "mien.toml"
MAX_BYTES = 1 << 20


class Secret:
    """Text that is shown nowhere; `reveal` is called where it is used."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a secret is not written down")


def _default_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "mien"


def _at_least(low: float, section: object, *names: str) -> None:
    for name in names:
        if not getattr(section, name) >= low:
            raise InputError(f"{name} = {getattr(section, name)} is too small", hint=f"it is at least {low:g}")


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """Of the queue and its workers: section [jobs], variables MIEN_JOBS_*."""

    url: Secret = field(default_factory=Secret)  # postgresql://, redis://; none: SQLite in `folder`. Holds a password.
    folder: Path = field(default_factory=_default_folder)  # Of SQLite and its pictures, closed to others.
    max_waiting: int = 200  # Jobs that wait, of everybody.
    max_per_user: int = 8  # Jobs of one user that wait or run.
    max_attempts: int = 3  # How often a job is begun whose worker dies or meets a fault.
    retry_delay_s: float = 2.0  # Before the second attempt; twice as long before the third.
    lease_s: float = 30.0  # A worker that has not said for so long that it lives has lost its job.
    timeout_s: float = 600.0  # Longest work on one job.
    drain_s: float = 60.0  # How long a worker that was told to stop may finish its job.
    keep_s: float = 3600.0  # Results stay so long after they are done, unless a door says otherwise.
    keep_undelivered_s: float = 86400.0  # Results that no door has fetched.
    keep_records_s: float = 86400.0  # What is left of a job without its user, so that it is not done twice.

    def __post_init__(self) -> None:
        _at_least(1, self, "max_waiting", "max_per_user", "max_attempts", "lease_s", "timeout_s")
        _at_least(0, self, "retry_delay_s", "drain_s", "keep_s", "keep_undelivered_s", "keep_records_s")


@dataclass(frozen=True, kw_only=True)
class TrustSettings:
    """Of what comes in: section [trust], variables MIEN_TRUST_*."""

    max_bytes: int = 20 << 20  # Of one picture's file.
    max_pixels: int = 50_000_000  # Of one picture, width times height.
    max_side_px: int = 20_000  # A narrow strip of that many is refused too.
    max_pictures: int = 10  # Of one request.
    max_faces: int = 20  # Of one picture; the largest are done.
    decode_timeout_s: float = 20.0  # For one picture.
    decode_memory_mb: int = 1024  # Likewise, of address space beyond what the decoder itself takes.
    block_list: Path | None = None  # Users and pictures that are refused; see docs/service.md.

    def __post_init__(self) -> None:
        _at_least(1, self, "max_bytes", "max_pixels", "max_side_px", "max_pictures", "max_faces", "decode_memory_mb")
        _at_least(0.1, self, "decode_timeout_s")


@dataclass(frozen=True, kw_only=True)
class MarkSettings:
    """Of pictures that go out: section [marks], variables MIEN_MARKS_*."""

    visible: bool = False  # Letters in the corner.
    visible_text: str = "AI"
    c2pa_certificate: Path | None = None  # PEM chain of the operator; with it every picture carries a signed manifest.
    c2pa_key: Secret = field(default_factory=Secret)  # PEM of its key: MIEN_MARKS_C2PA_KEY, or c2pa_key_file.
    c2pa_algorithm: str = "es256"
    c2pa_timestamp_url: str = ""  # RFC 3161; none: signatures end with the certificate.

    def __post_init__(self) -> None:
        if not self.visible_text or len(self.visible_text) > 40 or not self.visible_text.isprintable():
            raise InputError("visible_text is empty or too long", hint="at most 40 letters")
        if self.c2pa_certificate is not None and not self.c2pa_key:
            raise InputError("c2pa_certificate has no key", hint="set MIEN_MARKS_C2PA_KEY or c2pa_key_file")


@dataclass(frozen=True, kw_only=True)
class BotSettings:
    """Of the Telegram bot: section [bot], variables MIEN_BOT_*."""

    token: Secret = field(default_factory=Secret)  # From @BotFather: MIEN_BOT_TOKEN, or token_file.
    api_url: str = ""  # Of a Bot API server of one's own; none: Telegram's.
    api_is_local: bool = False  # It runs with --local on this machine, where files of any size lie.
    webhook_url: str = ""  # https:// that Telegram calls; none: the bot asks Telegram.
    webhook_secret: Secret = field(default_factory=Secret)  # Telegram shows it with each call; without one: drawn.
    webhook_host: str = "127.0.0.1"  # Where a proxy finds the bot.
    webhook_port: int = 8080
    per_minute: int = 30  # Messages of one user; the album of ten is ten.
    method: str = "optimize"  # Of inversion.
    drain_s: float = 20.0  # How long what is being answered may take after SIGTERM.

    def __post_init__(self) -> None:
        _at_least(1, self, "per_minute", "webhook_port")
        _at_least(0, self, "drain_s")


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """Of the page's plain API: section [web], variables MIEN_WEB_*."""

    api_keys: Secret = field(default_factory=Secret)  # With spaces between; none: everybody may ask, by address.


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of an operator's settings."""

    jobs: JobSettings = field(default_factory=JobSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)
    marks: MarkSettings = field(default_factory=MarkSettings)
    bot: BotSettings = field(default_factory=BotSettings)
    web: WebSettings = field(default_factory=WebSettings)


SECTIONS: Mapping[str, type] = {
    "jobs": JobSettings,
    "trust": TrustSettings,
    "marks": MarkSettings,
    "bot": BotSettings,
    "web": WebSettings,
}


# ---- Values ----------------------------------------------------------------------------------------------------------


def _no(where: str, kind: str) -> InputError:
    return InputError(f"{where} is not {kind}", hint="see docs/service.md")


def _bool(value: object, where: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise _no(where, "true or false")


def _int(value: object, where: str) -> int:
    if isinstance(value, str) and len(value) <= 18:
        value = int(value) if value.lstrip("-").isdecimal() and value.isascii() else value
    if type(value) is not int:
        raise _no(where, "a whole number")
    return value


def _float(value: object, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise _no(where, "a number")
    return number


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _no(where, "text")
    return value


def _path(value: object, where: str) -> Path | None:
    text = _text(value, where)
    return Path(text).expanduser() if text else None


KINDS: Mapping[Any, Callable[[object, str], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _text,
    Path: _path,
    Path | None: _path,
    Secret: lambda value, where: Secret(_text(value, where)),
}


def read_secret(path: Path) -> Secret:
    """Read a secret from a file that nobody but its owner may read.

    Raises:
        InputError: there is none, others may read it, or it is too large.
    """
    try:
        with open(path, encoding="utf-8") as file:
            facts = os.fstat(file.fileno())
            if os.name != "nt" and facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise InputError(f"others may read the secret in {path}", hint=f"chmod 600 {path}")
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES:
                raise InputError(f"{path} holds no secret", hint="write it into a file of its own")
            return Secret(file.read().strip())
    except UnicodeDecodeError:
        raise InputError(f"{path} holds no text", hint="write the secret as text") from None
    except OSError as err:
        raise InputError(f"cannot read the secret in {path}: {err.strerror}", hint="check its name") from None


# ---- Where they come from --------------------------------------------------------------------------------------------


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.loads(file.read(MAX_BYTES).decode())
    except OSError as err:
        raise InputError(f"cannot read the settings in {path}: {err.strerror}", hint=f"check {CONFIG}") from err
    except ValueError as err:  # what it quotes of the file might be a secret
        raise InputError(f"{path} is no TOML", hint="see docs/service.md") from (None if err else err)


def _section(name: str, kind: type, file: Mapping[str, Any], env: Mapping[str, str]) -> Any:
    """Make one section of what the file and the variables say of it; variables win."""
    hints = get_type_hints(kind)
    secrets = [f.name for f in fields(kind) if hints[f.name] is Secret]
    known = [f.name for f in fields(kind)] + [f"{secret}_file" for secret in secrets]
    prefix = f"{PREFIX}{name.upper()}_"
    given: dict[str, tuple[object, str]] = {key: (value, f"{key} in [{name}]") for key, value in file.items()}
    given |= {v.removeprefix(prefix).lower(): (env[v], v) for v in env if v.startswith(prefix)}
    made: dict[str, Any] = {}
    for key, (value, where) in given.items():
        if key not in known:
            raise InputError(f"there is no setting {where}", hint=f"known: {', '.join(known)}")
        if key in secrets and not where.startswith(PREFIX):
            hint = f"set {prefix}{key.upper()}, or write it into a file and name that in {key}_file"
            raise InputError(f"{where} is a secret, which does not belong into the settings", hint=hint)
        if key.removesuffix("_file") in secrets and key not in secrets:
            path = _path(value, where)
            made.setdefault(key.removesuffix("_file"), Secret() if path is None else read_secret(path))
        else:
            made[key] = KINDS[hints[key]](value, where)
    return kind(**made)


def load_settings(path: Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Read the operator's settings.

    Args:
        path: TOML; by default as `MIEN_CONFIG` says, else `mien.toml` of the current folder, if it is there.
        env: variables, by default the process's.

    Raises:
        InputError: an unknown section or name, a value that is none, a secret in the wrong place.
    """
    env = os.environ if env is None else env
    if path is None and (env.get(CONFIG) or Path(DEFAULT_FILE).is_file()):
        path = Path(env.get(CONFIG) or DEFAULT_FILE)
    file = {} if path is None else _read_toml(path)
    for name, section in file.items():
        if name not in SECTIONS or not isinstance(section, dict):
            raise InputError(f"there are no settings [{name}]", hint=f"known: {', '.join(SECTIONS)}")
    return Settings(**{name: _section(name, kind, file.get(name, {}), env) for name, kind in SECTIONS.items()})
