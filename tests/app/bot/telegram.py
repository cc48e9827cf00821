"""A small Telegram: the part of the Bot API that a bot needs, over HTTP, with users who write, press and look.

Messages lie in `messages` by chat and number as the user sees them, so that what is edited twice is there once.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

TOKEN = "123456:AAtelegram-test-token_0123456789abcde"
BOT_ID = 123456
FILES = ("photo", "video", "document")


class Telegram:
    """The server, in a thread of its own; its state is read from the test's thread."""

    def __init__(self) -> None:
        self.updates: dict[int, dict[str, Any]] = {}
        self.sent_s: dict[int, float] = {}
        self.messages: dict[tuple[int, int], dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.calls: list[tuple[float, str, dict[str, Any]]] = []
        self.answers: list[dict[str, Any]] = []
        self.faults: Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]] | None] = lambda method, data: None
        self._number = 100
        self._lock = threading.RLock()
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port = 0

    # ---- The server --------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(100)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def thread_id(self) -> int:
        """The system's number of the server's thread."""
        return self._thread.native_id or 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _serve(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/bot{token}/{method}", self._call)
        app.router.add_get("/file/bot{token}/{path:.*}", self._file)

        async def start() -> web.AppRunner:
            runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            return runner

        runner = self._loop.run_until_complete(start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _file(self, request: web.Request) -> web.Response:
        data = self.files.get(request.match_info["path"])
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def _call(self, request: web.Request) -> web.Response:
        method, data = request.match_info["method"], {}
        form = await request.post()
        for name, value in form.items():
            data[name] = value.file.read() if isinstance(value, web.FileField) else _json(value)
        if request.match_info["token"] != TOKEN:
            return _error(401, "Unauthorized")
        with self._lock:
            self.calls.append((time.monotonic(), method, data))
        if (fault := self.faults(method, data)) is not None:
            return web.json_response({"ok": False, "error_code": fault[0], **fault[1]}, status=fault[0])
        answer = getattr(self, f"do_{method}", None)
        if answer is None:
            return _error(404, f"Not Found: no {method}")
        if method == "getUpdates":
            return web.json_response({"ok": True, "result": await self._get_updates(data)})
        with self._lock:
            result = answer(data)
        if isinstance(result, str):
            return _error(400, f"Bad Request: {result}")
        return web.json_response({"ok": True, "result": result})

    async def _get_updates(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        until_s = time.monotonic() + min(data.get("timeout", 0), 2)
        with self._lock:
            for number in [n for n in self.updates if n < data.get("offset", 0)]:
                del self.updates[number]
        while True:
            with self._lock:
                found = [self.updates[n] for n in sorted(self.updates)][: data.get("limit", 100)]
            if found or time.monotonic() > until_s:
                return found
            await asyncio.sleep(0.01)

    # ---- Methods -----------------------------------------------------------------------------------------------------

    def do_getUpdates(self, data: dict[str, Any]) -> None: ...

    def do_getMe(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"id": BOT_ID, "is_bot": True, "first_name": "mien", "username": "mien_bot"}

    def do_setMyCommands(self, data: dict[str, Any]) -> bool:
        return True

    def do_deleteWebhook(self, data: dict[str, Any]) -> bool:
        return True

    def do_setWebhook(self, data: dict[str, Any]) -> bool:
        return True

    def do_answerCallbackQuery(self, data: dict[str, Any]) -> bool:
        self.answers.append(data)
        return True

    def do_getFile(self, data: dict[str, Any]) -> dict[str, Any] | str:
        name = data["file_id"]
        if name not in self.files:
            return "wrong file_id or the file is temporarily unavailable"
        if len(self.files[name]) > 20 << 20:
            return "file is too big"
        return {"file_id": name, "file_unique_id": name, "file_path": name, "file_size": len(self.files[name])}

    def do_sendMessage(self, data: dict[str, Any]) -> dict[str, Any]:
        return self._add(data["chat_id"], {"text": data["text"]}, data)

    def do_sendPhoto(self, data: dict[str, Any]) -> dict[str, Any]:
        return self._send_file(data, "photo")

    def do_sendDocument(self, data: dict[str, Any]) -> dict[str, Any]:
        return self._send_file(data, "document")

    def do_sendVideo(self, data: dict[str, Any]) -> dict[str, Any]:
        return self._send_file(data, "video")

    def do_deleteMessage(self, data: dict[str, Any]) -> bool | str:
        gone = self.messages.pop((data["chat_id"], data["message_id"]), None)
        return "message to delete not found" if gone is None else True

    def do_editMessageText(self, data: dict[str, Any]) -> dict[str, Any] | str:
        if (known := self.messages.get((data["chat_id"], data["message_id"]))) is None:
            return "message to edit not found"
        if "text" not in known:
            return "there is no text in the message to edit"
        changed = {**known, "text": data["text"], "reply_markup": data.get("reply_markup")}
        if changed == {"reply_markup": None, **known}:
            return "message is not modified"
        self.messages[data["chat_id"], data["message_id"]] = changed
        return changed

    def do_editMessageMedia(self, data: dict[str, Any]) -> dict[str, Any] | str:
        if (known := self.messages.get((data["chat_id"], data["message_id"]))) is None:
            return "message to edit not found"
        media = data["media"]
        body = data[media["media"].removeprefix("attach://")]
        kept = {name: value for name, value in known.items() if name not in ("text", *FILES)}
        changed = {**kept, **self._filed(media["type"], body), "caption": media.get("caption")}
        changed["reply_markup"] = data.get("reply_markup")
        self.messages[data["chat_id"], data["message_id"]] = changed
        return changed

    def _send_file(self, data: dict[str, Any], kind: str) -> dict[str, Any]:
        body = data[data[kind].removeprefix("attach://")] if isinstance(data[kind], str) else data[kind]
        return self._add(data["chat_id"], {**self._filed(kind, body), "caption": data.get("caption")}, data)

    def _filed(self, kind: str, body: bytes, name: str = "mien.png", mime: str = "image/png") -> dict[str, Any]:
        file_id = f"file{len(self.files)}"
        self.files[file_id] = body
        one = {"file_id": file_id, "file_unique_id": file_id, "file_size": len(body)}
        if kind == "photo":
            return {"photo": [{**one, "width": 90, "height": 90}, {**one, "width": 640, "height": 640}]}
        if kind == "video":
            return {"video": {**one, "width": 256, "height": 256, "duration": 1}}
        return {"document": {**one, "file_name": name, "mime_type": mime}}

    def _add(self, chat: int, content: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        message = {
            "message_id": self._number,
            "date": 1,
            "chat": {"id": chat, "type": "private"},
            "from": self.do_getMe({}),
            **content,
        }
        if "reply_markup" in data:
            message["reply_markup"] = data["reply_markup"]
        replied = (data.get("reply_parameters") or {}).get("message_id")
        if (chat, replied) in self.messages:
            message["reply_to_message"] = _alone(self.messages[chat, replied])
        self.messages[chat, self._number] = message
        return message

    # ---- Users -------------------------------------------------------------------------------------------------------

    def write(self, user: int, lang: str = "en", chat_type: str = "private", **content: Any) -> dict[str, Any]:
        """Let a user write a message."""
        with self._lock:
            self._number += 1
            message = {
                "message_id": self._number,
                "date": 1,
                "chat": {"id": user, "type": chat_type},
                "from": {"id": user, "is_bot": False, "first_name": "U", "language_code": lang},
                **content,
            }
            self.messages[user, self._number] = message
            self._update({"message": message})
            return message

    def photo(self, user: int, body: bytes, **more: Any) -> dict[str, Any]:
        with self._lock:
            filed = self._filed("photo", body)
        return self.write(user, **filed, **more)

    def document(self, user: int, body: bytes, name: str = "a.png", mime: str = "image/png", **more: Any) -> Any:
        with self._lock:
            filed = self._filed("document", body, name, mime)
        return self.write(user, **filed, **more)

    def press(self, user: int, message: int, data: str, lang: str = "en") -> None:
        """Let a user press the button with this data, whether the message has it or not."""
        with self._lock:
            sender = {"id": user, "is_bot": False, "first_name": "U", "language_code": lang}
            pressed = {"id": f"press{self._number}", "from": sender, "chat_instance": "1", "data": data}
            self._number += 1
            self._update({"callback_query": {**pressed, "message": self.messages[user, message]}})

    def _update(self, content: dict[str, Any]) -> None:
        self._number += 1
        self.sent_s[self._number] = time.monotonic()
        self.updates[self._number] = {"update_id": self._number, **content}

    def of_bot(self, chat: int) -> list[dict[str, Any]]:
        """Return what the bot's messages in a chat are now."""
        with self._lock:
            return [m for (c, _), m in sorted(self.messages.items()) if c == chat and m["from"]["is_bot"]]

    def results(self, chat: int) -> list[dict[str, Any]]:
        """Return the bot's messages with a picture."""
        return [m for m in self.of_bot(chat) if set(FILES) & set(m)]


def buttons(message: dict[str, Any]) -> list[str]:
    """Return the data of a message's buttons."""
    rows = (message.get("reply_markup") or {}).get("inline_keyboard", [])
    return [button["callback_data"] for row in rows for button in row]


def _alone(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "reply_to_message"}


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _error(code: int, text: str) -> web.Response:
    return web.json_response({"ok": False, "error_code": code, "description": text}, status=code)
