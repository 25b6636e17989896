"""Names under which a server may be asked: a middleware against DNS rebinding, for every service of this project.

A web page that somebody visits can let its own name lead to 127.0.0.1; the browser then takes this server for a part
of that web page, which may read and do there what the owner of the machine may. What gives it away is the name that
stands in the request (`Host`, `Origin`).
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

# Of ASGI, the way in which Python's servers call what they serve.
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ANY_ADDRESS = ("0.0.0.0", "::")  # a server that listens there is reached by each address of its machine
MAX_NAME_SHOWN = 100  # letters of a name that is refused


def host_name(authority: str) -> str:
    """Return the name or address in `NAME:PORT`, lower case, without port and brackets; empty where there is none."""
    try:
        return str(_address(authority) or urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:  # brackets that are not closed
        return ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that this is; an IPv4 one that came by way of IPv6 as itself. None for a name."""
    try:
        address = ipaddress.ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Return whether a name or address leads to this machine alone, wherever it is looked up."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def names_of_server(host: str, further_names: Iterable[str] = ()) -> frozenset[str]:
    """Return the names, besides the loopback's, under which a server is asked that listens at `host`.

    They are those of a Space (`SPACE_HOST`), the host itself or, where that is any address, this machine's own name;
    its addresses are known from each connection.

    Args:
        further_names: of `--allowed_hosts`.

    Raises:
        ValueError: a further name with more than a name in it.
    """
    for name in further_names:
        if host_name(name) != name.lower().rstrip(".").strip("[]") or not host_name(name):
            raise ValueError(
                f"--allowed_hosts takes names like pictures.example.org, without http:// and port, got {name}"
            )
    machine = socket.gethostname()
    own = (machine, f"{machine}.local", socket.getfqdn()) if host in ANY_ADDRESS else (host,)
    names = (*os.environ.get("SPACE_HOST", "").split(","), *own, *further_names)
    return frozenset(name for name in (host_name(name.strip()) for name in names) if name)


async def answer_plainly(send: Send, status: int, text: str, kind: str = "http") -> None:
    """Answer a request with a line of plain text.

    Args:
        kind: of the connection, "http" or "websocket".
    """
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text[:100]})  # of a policy that is violated
        return
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class AllowedHosts:
    """Middleware that answers 403 to a request under a foreign name, or from a web page of a foreign name.

    Loopback names and the address at which the connection arrived are always allowed: none of them can be taken by
    somebody else's web page. A request without `Origin` comes from no web page, or from one that may only look.

    Args:
        names: what else is allowed, as `names_of_server` gives them.
    """

    def __init__(self, app: App, names: Iterable[str] = ()):
        self.app, self.names = app, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (reason := self._refusal(scope)):
            await answer_plainly(send, 403, reason, scope["type"])
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        """Return why a request is refused, or None."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        for name in map(host_name, hosts or [""]):
            if not self._is_allowed(name, scope):
                return self._message("asked for under the name", name)
        for origin in origins:
            name = host_name(origin.partition("://")[2])
            if not self._is_allowed(name, scope):
                return self._message("called from a web page of", name or origin)
        return None

    def _is_allowed(self, name: str, scope: Scope) -> bool:
        address, (arrived_at, _) = _address(name), scope.get("server") or ("", None)
        return is_loopback(name) or name in self.names or (address is not None and address == _address(arrived_at))

    def _message(self, way: str, name: str) -> str:
        allowed = ", ".join(["localhost", *sorted(self.names)])
        return (
            f"This server was {way} {name[:MAX_NAME_SHOWN]!r}. It answers as {allowed}; its owner can allow another "
            "name with --allowed_hosts NAME"
        )
