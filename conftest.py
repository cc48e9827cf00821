"""Leave out the examples of modules whose door is not installed; `web` is no part of `all`."""

from importlib.util import find_spec

BEHIND = {"gradio": ["web_api", "web_page"], "aiogram": ["bot", "bot_api", "bot_courier", "bot_poll", "bot_talk"]}

collect_ignore = [
    f"src/mien/app/{name}.py" for library, names in BEHIND.items() if find_spec(library) is None for name in names
]
