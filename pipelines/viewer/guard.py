"""Who may ask: the server's answer to other web pages, other machines and other names for this one.

- A page of another site must not reach the server through a name that it makes point here (DNS rebinding):
  the Host header must be an IP address, which no such page can claim, `localhost`, or this machine's name.
- It must not make the browser ask here either: requests that the browser calls cross-site are refused,
  and one that writes must carry a header that only a page of this origin can set.
- With a token, nothing is answered without it: as `?token=` once, which leaves a cookie, or as a bearer.
- What is answered may run no script but the viewer's own files, be framed nowhere, and say nothing on.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
WRITE_HEADER = "x-fde-viewer"

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass
class Guard:
    """ASGI middleware around the whole app. `host` is what the server was told to listen on."""

    app: ASGIApp
    host: str = "127.0.0.1"
    token: str | None = None
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        own = socket.gethostname().lower()
        self.names = frozenset({"localhost", self.host.lower(), own, own.partition(".")[0]})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        refusal = self._refusal(scope, headers, given)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    out[name] = value
                if refusal is None and self.token and given:
                    out.append(
                        "set-cookie", f"{_cookie(scope)}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                    )
            await send(message)

        app = self.app if refusal is None else JSONResponse({"error": refusal[1]}, refusal[0])
        await app(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers, given: str) -> tuple[int, str] | None:
        """Status and reason where the request is refused."""
        if not self._is_own_name(headers.get("host", "")):
            return 403, "this name is not one of the server's: open it by its IP address, or as localhost"
        if headers.get("sec-fetch-site", "same-origin") == "cross-site" and scope["path"] != "/":
            return 403, "another site asked"
        if self.token and not self._has_token(scope, headers, given):
            return 401, "open the address that fde view printed: it holds the token"
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                return 403, "another site asked"
            if WRITE_HEADER not in headers or not headers.get("content-type", "").startswith(
                "application/json"
            ):
                return 403, f"what writes must be JSON and carry the header {WRITE_HEADER}"
        return None

    def _is_own_name(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _has_token(self, scope: Scope, headers: Headers, given: str) -> bool:
        assert self.token is not None
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        kept = cookies.get(_cookie(scope))
        claims = (given, bearer, "" if kept is None else kept.value)
        return any(hmac.compare_digest(claim.encode(), self.token.encode()) for claim in claims)


def _cookie(scope: Scope) -> str:
    """Cookies do not tell ports apart; two viewers on one machine must."""
    return f"fde-viewer-{scope['server'][1]}"
