"""A real HTTP server on this machine that speaks the chat-completions protocol, and misbehaves as it is told."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Move = Callable[["_Handler"], None]


def said(text: str | None = "A red cup stands on a table.", finish: str = "stop", **message: Any) -> bytes:
    """A response of the protocol."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    response = {
        "id": "x",
        "model": "toy-1",
        "choices": [{**choice, "finish_reason": finish}],
        "usage": usage,
    }
    return json.dumps(response).encode()


def reply(body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> Move:
    def move(handler: _Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return move


def answer(text: str | None = "A red cup stands on a table.", finish: str = "stop", **message: Any) -> Move:
    return reply(said(text, finish, **message))


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Move:
    return reply(json.dumps({"error": {"message": message, "code": code}}).encode(), status, **headers)


def cut_within(body: bytes) -> Move:
    """Promises the whole body, sends half of it, and is gone."""

    def move(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])

    return move


def cut_before(handler: _Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def hang(handler: _Handler) -> None:
    """Nothing, until the client goes or the server is closed."""
    handler.server.chat.closing.wait(60)  # type: ignore[attr-defined]


def trickle(handler: _Handler) -> None:
    """A byte now and then, for ever: each read of the client succeeds."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.chat.closing.wait(0.05):  # type: ignore[attr-defined]
        handler.wfile.write(b"x")


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        content = self.body["messages"][-1]["content"]
        return (
            content if isinstance(content, str) else next(p["text"] for p in content if p["type"] == "text")
        )


@dataclass
class ChatServer:
    """Answers by `script`, move by move, and then by `rule`; keeps what it was asked."""

    rule: Callable[[Asked], Move] = lambda asked: answer()
    script: list[Move] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def wait_for(self, at_once: int) -> None:
        """Until so many requests have waited for their answers at one time."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.most_at_once >= at_once, timeout=120)


class _Handler(BaseHTTPRequestHandler):
    _waits = False

    def do_POST(self) -> None:
        chat: ChatServer = self.server.chat  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        with chat.changed:
            chat.asked.append(asked)
            move = chat.script.pop(0) if chat.script else chat.rule(asked)
            self._waits = True
            chat.at_once += 1
            chat.most_at_once = max(chat.most_at_once, chat.at_once)
            chat.changed.notify_all()
        try:
            move(self)
        except OSError:
            pass  # the client has gone: some tests want that
        finally:
            self.close_connection = True
            self._answers()

    def send_response(self, code: int, message: str | None = None) -> None:
        # Before a byte is out: whoever has the answer may ask again before this thread runs on.
        self._answers()
        super().send_response(code, message)

    def _answers(self) -> None:
        """The client waits no longer: the request does not count as one of those at once."""
        chat: ChatServer = self.server.chat  # type: ignore[attr-defined]
        with chat.changed:
            chat.at_once -= self._waits
            self._waits = False

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has gone, as above


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[ChatServer]:
    chat = ChatServer()
    with _Server(("127.0.0.1", 0), _Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.chat = chat  # type: ignore[attr-defined]
        chat.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield chat
        finally:
            chat.closing.set()
            server.shutdown()
            thread.join()
