"""What passes between the server and its routes: requests, answers, refusals, and the table of endpoints."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from .server import HubServer


class Refusal(Exception):
    """An answer that says no.

    Args:
        status: HTTP status code.
        message: for people; the client shows it.
        code: what the client tells apart: ``RepoNotFound``, ``RevisionNotFound``, ``EntryNotFound`` ...
        body: the whole JSON body, where it is more than the message.
        headers: further headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        named = {"X-Error-Code": code} if code else {}
        line = "".join(c if c.isascii() and c.isprintable() else "?" for c in message)  # headers hold nothing else
        self.answer = Answer(
            dict(body or {"error": message}), status, {**named, "X-Error-Message": line, **(headers or {})}
        )


@dataclass
class Answer:
    """Status, body (JSON unless bytes) and headers of an answer."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self) -> tuple[bytes, dict[str, str]]:
        """Return the body's bytes and the headers that go with them."""
        if isinstance(self.body, bytes):
            return self.body, {"Content-Type": "application/octet-stream", **self.headers}
        return json.dumps(self.body).encode(), {"Content-Type": "application/json; charset=utf-8", **self.headers}


@dataclass
class Record:
    """A request that the server saw; ``status`` is None where no answer was sent. Sizes are bytes of the bodies."""

    endpoint: str | None
    method: str
    path: str
    status: int | None = None
    received: int = 0
    sent: int = 0
    fault: int | str | None = None


@dataclass
class Request:
    """One request, read whole; ``path`` is as sent (quoted), without the query."""

    hub: "HubServer"
    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes
    spoil: Callable[[bytes], bytes] | None = None  # a fault that waits for bytes to damage

    @cached_property
    def query(self) -> dict[str, str]:
        """The last value of each parameter."""
        return {name: values[-1] for name, values in parse_qs(self.query_string).items()}

    def json(self) -> Any:
        """Return the body's JSON; an empty body is an empty object."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refusal(400, f"the body is no JSON: {error}") from None

    def received(self, data: bytes) -> bytes:
        """Return what is stored of the bytes that were sent: the same, unless a fault damages them on the way."""
        if self.spoil is None:
            return data
        spoil, self.spoil = self.spoil, None
        return spoil(data)

    @property
    def token(self) -> str | None:
        """The bearer token, if one was sent."""
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind == "Bearer" else None


Handler = Callable[..., Any]  # (request, **groups of the path) -> Answer, or the JSON of one


@dataclass(frozen=True)
class Endpoint:
    """A named endpoint: its method, the pattern of its whole path, and what answers it."""

    name: str
    method: str
    pattern: re.Pattern[str]
    handler: Handler

    def match(self, method: str, path: str) -> dict[str, str | None] | None:
        """Return the unquoted parts of the path that the handler takes, or None."""
        found = self.pattern.fullmatch(path) if method == self.method else None
        if found is None:
            return None
        return {name: value and unquote(value) for name, value in found.groupdict().items()}


TABLE: dict[str, Endpoint] = {}
PARTS = {"{repo}": r"(?P<repo>[^/]+/[^/]+?)", "{rev}": r"(?P<rev>[^/]+)", "{path}": r"(?P<path>.+)"}


def endpoint(name: str, method: str, path: str) -> Callable[[Handler], Handler]:
    """Enter a handler into the table; ``{repo}``, ``{rev}`` and ``{path}`` stand for their patterns."""
    for part, pattern in PARTS.items():
        path = path.replace(part, pattern)

    def enter(handler: Handler) -> Handler:
        TABLE[name] = Endpoint(name, method, re.compile(path), handler)
        return handler

    return enter
