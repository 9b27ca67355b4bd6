"""Requests to a server that speaks OpenAI's protocol: tried again where that may help, each refusal explained."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import httpx2

from ...errors import UserError, clip
from ...pipelines.folder import shown
from ...retry import Retries
from .address import KEY, base_url

CONNECT = 10.0  # seconds until a server must have taken a connection
ANSWER = 600.0  # seconds without an answer; a request may wait behind many others
PATIENCE = 2  # time-outs of one request before the evaluation stops
SAY_EVERY = 5.0  # seconds between lines about requests that are tried again
GUIDE = "docs/vllm.md"
# Bytes of an answer, at most: a list of thousands of models; an answer, with what each token adds (about 300).
MAX_LIST, MAX_ANSWER, MAX_TOKEN = 2**22, 2**18, 2048


class Endpoint:
    """One server.

    Args:
        endpoint: its address, with or without ``/v1``.
        connections: requests at the same time, at most.
        timeout: seconds without an answer.

    Raises:
        UserError: this is no address, or the key or a proxy in the environment cannot be one.
    """

    def __init__(self, endpoint: str, connections: int, timeout: float = ANSWER) -> None:
        self.url = base_url(endpoint)
        self.timeout = timeout
        self._key = os.environ.get(KEY, "").strip()
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise UserError("the key for the server holds characters that no key has", where=KEY)
        try:
            self._client = httpx2.Client(
                headers={
                    "Accept-Encoding": "identity",
                    **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
                },
                timeout=httpx2.Timeout(timeout, connect=min(CONNECT, timeout), pool=None),
                limits=httpx2.Limits(max_connections=connections),
            )
        except (ImportError, ValueError, OSError) as error:
            what = f"the environment asks for connections that cannot be made: {clip(error, 200)}"
            raise UserError(what, where="HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE, SSL_CERT_DIR") from error
        self._retries = Retries("the same command", self._say, self.scrub)
        self._lock, self._said, self._heard = threading.Lock(), -SAY_EVERY, -1.0

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def scrub(self, text: str) -> str:
        """Return what others wrote without the key."""
        return text.replace(self._key, "***") if self._key else text

    def version(self) -> str:
        """Return what the server calls its version; empty where it does not say."""
        try:
            url = self.url.removesuffix("/v1") + "/version"
            found = _parsed(self._exchange("GET", url, None, MAX_LIST))["version"]
            return found if isinstance(found, str) and found.isprintable() and len(found) < 100 else ""
        except (UserError, httpx2.HTTPError, ValueError, LookupError, TypeError):
            return ""

    def get(self, path: str) -> dict[str, Any]:
        """Return the object that the server gives for a path.

        Raises:
            UserError: as ``post``.
        """
        return self._ask("GET", path, None, MAX_LIST)

    def post(self, path: str, body: dict[str, Any], tokens: int) -> dict[str, Any]:
        """Send an object, return the one that comes back.

        Args:
            path: below the address.
            body: the object.
            tokens: how many tokens the answer may be about.

        Raises:
            UserError: the server cannot be reached, does not answer in time, refuses, or answers nonsense.
            Refused: it says that the request is wrong (400), so that the caller can say what it was.
        """
        return self._ask("POST", path, body, MAX_ANSWER + MAX_TOKEN * tokens)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, most: int) -> dict[str, Any]:
        url = self.url + path
        silent = 0

        def once() -> dict[str, Any]:
            nonlocal silent
            try:
                response = self._heard_from(method, url, body, most)
            except httpx2.ReadTimeout:
                silent += 1
                if silent < PATIENCE:
                    raise
                raise UserError(
                    f"the server answered nothing within {self.timeout:,.0f} s, {silent} times in a row",
                    where=url,
                    next_step="look at its log: it may hang, or have too many requests of others",
                ) from None
            response.raise_for_status()
            try:
                found = _parsed(response)
            except json.JSONDecodeError as error:  # while questions are asked, a page of a proxy in a bad moment
                raise error if method == "POST" else ValueError(str(error)) from None
            if not isinstance(found, dict):
                raise UserError("the server's answer is no JSON object", where=url)
            return found

        try:
            return self._retries("asking the server", once)
        except httpx2.HTTPStatusError as error:
            raise self._explained(url, error.response) from None
        except UserError as error:
            if error.where is not None:
                raise
            raise UserError(
                error.what,
                where=url,
                next_step=f"see the server's log, start it again ({GUIDE}); the same command goes on where it stopped",
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            what = f"the server's answer cannot be understood: {type(error).__name__} {self._quoted(str(error))}"
            raise UserError(what, where=url, next_step="is this a server with OpenAI's protocol?") from None

    def _heard_from(self, method: str, url: str, body: dict[str, Any] | None, most: int) -> httpx2.Response:
        """Return a response. A time-out while the server answers other requests means that this one waits in line."""
        while True:
            began = time.monotonic()
            try:
                response = self._exchange(method, url, body, most)
                self._heard = time.monotonic()
                return response
            except httpx2.ReadTimeout:
                if self._heard < began:
                    raise

    def _exchange(self, method: str, url: str, body: dict[str, Any] | None, most: int) -> httpx2.Response:
        """Return a response: its body must end soon after it began, and be as short and plain as was asked for.

        Raises:
            UserError: it is not. Of a refusal, only the beginning is read.
        """
        content, what = bytearray(), ""
        with self._client.stream(method, url, json=body) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                what = "is compressed, which was not asked for"
            end = time.monotonic() + self.timeout
            for chunk in response.iter_raw() if not what else ():
                content += chunk
                if len(content) > most:
                    what = f"has more than {most:,} bytes"
                elif time.monotonic() > end:
                    what = f"does not end within {self.timeout:,.0f} s"
                if what:
                    break
        if what and response.is_success:
            raise UserError(f"the server's answer {what}", where=url, next_step=f"see its log, and {GUIDE}")
        kept = {name: response.headers[name] for name in ("retry-after",) if name in response.headers}
        return httpx2.Response(
            response.status_code, headers=kept, content=bytes(content[:most]), request=response.request
        )

    def _explained(self, url: str, response: httpx2.Response) -> Exception:
        """Return what a refusal means."""
        status, said = response.status_code, self._quoted(_message(response))
        if status == 400:
            return Refused(said)
        if status in (401, 403):
            return UserError(
                f"the server does not accept the key (HTTP {status})" if self._key else "the server wants a key",
                where=url,
                next_step=f"put the one it was started with into the environment variable {KEY}",
            )
        return UserError(f"the server refuses (HTTP {status}): {said}", where=url, next_step=f"see {GUIDE}")

    def _quoted(self, text: str) -> str:
        return clip(self.scrub(text), 300)

    def _say(self, text: str) -> None:
        """Print a line about a wait; requests that wait for the same reason together are one line."""
        with self._lock:
            now = time.monotonic()
            if now - self._said < SAY_EVERY:
                return
            self._said = now
        print(f"{shown(self.url)}: {text}", file=sys.stderr, flush=True)


class Refused(Exception):
    """The server says that the request is wrong; the text is its own, escaped."""


def _parsed(response: httpx2.Response) -> Any:
    """Return what a response holds.

    Raises:
        ValueError: that is no JSON.
    """
    try:
        return json.loads(response.content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _message(response: httpx2.Response) -> str:
    """Return what a server says about a refusal, in one of the forms there are."""
    try:
        found = _parsed(response)
        error = found.get("error", found) if isinstance(found, dict) else found
        return str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        return response.text
