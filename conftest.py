"""Leave out the examples of modules whose door is not installed; `web` is no part of `all`."""

from importlib.util import find_spec

BEHIND = {
    "gradio": ["web/api", "web/page"],
    "aiogram": [f"bot/{n}" for n in ("service", "api", "courier", "poll", "talk")],
}

collect_ignore = [
    f"src/mien/app/{name}.py" for library, names in BEHIND.items() if find_spec(library) is None for name in names
]
