"""Leave out the examples of modules whose door is not installed."""

from importlib.util import find_spec

TABS = [f"tabs/{name}" for name in ("face", "drawing", "people", "more")]
BEHIND = {
    "gradio": [f"web/{n}" for n in ("api", "page", "parts", *TABS)],
    "aiogram": [f"bot/{n}" for n in ("service", "api", "courier", "poll", "talk")],
}

collect_ignore = [
    f"src/mien/app/{name}.py" for library, names in BEHIND.items() if find_spec(library) is None for name in names
]
