"""Requests to a model server, by httpx2: tried again where that may help, each refusal explained in a line."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import UserError, printable_path, quoted

if TYPE_CHECKING:
    import httpx2

KEY = "OPENAI_API_KEY"  # the environment variable that holds a server's key
GUIDE = "docs/vllm.md"
CONNECT = 10.0  # seconds until a server must have taken a connection
TIMEOUT = 1200.0  # seconds of silence: a request may wait behind many others
SAY_EVERY = 5.0  # seconds between lines about requests that are tried again
MAX_ANSWER = 2**27  # bytes; the scores of a token take about 300


def base_url(endpoint: str) -> str:
    """Return the address that the protocol's paths are appended to: it ends in ``/v1``.

    Raises:
        UserError: this is no address of a server.
    """
    if "@" in endpoint:
        raise UserError(
            "the address holds a name or password, which tables and messages would show",
            where="--endpoint",
            next_step=f"put the key into the environment variable {KEY}",
        )
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname and parts.port != 0  # looking at the port checks it
        valid = host and parts.scheme in ("http", "https") and not parts.query + parts.fragment
    except ValueError:
        valid = False
    if not valid:
        raise UserError(
            f"{quoted(endpoint)} is no address of a server",
            where="--endpoint",
            allowed="http://localhost:8000, or https://host/v1",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}/v1"


class Endpoint:
    """One server: requests to it are tried again where that may help, and each refusal is explained in a line.

    Args:
        endpoint: its address, with or without ``/v1``.
        connections: requests at the same time, at most.
        timeout: seconds of silence.

    Raises:
        UserError: this is no address, or the key or a proxy in the environment cannot be one.
    """

    def __init__(self, endpoint: str, connections: int, timeout: float = TIMEOUT) -> None:
        import httpx2

        from ...retry import Retries

        self.url, self.timeout = base_url(endpoint), timeout
        self._key = os.environ.get(KEY, "").strip()
        if not re.fullmatch("[!-~]*", self._key):
            raise UserError("the key for the server holds characters that no key has", where=KEY)
        try:
            self._client = httpx2.Client(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
                timeout=httpx2.Timeout(timeout, connect=min(CONNECT, timeout), pool=None),
                limits=httpx2.Limits(max_connections=connections),
            )
        except (ImportError, ValueError, OSError) as error:
            what = f"the environment asks for connections that cannot be made: {quoted(error, 200)}"
            raise UserError(what, where="HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE, SSL_CERT_DIR") from error
        self._retries = Retries("the same command", self._say, self.scrub)
        self._said = -SAY_EVERY

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def scrub(self, text: str) -> str:
        """Return what others wrote without the key."""
        return text.replace(self._key, "***") if self._key else text

    def version(self) -> str:
        """Return what the server calls its version; empty where it does not say."""
        import httpx2

        try:
            found = json.loads(self._exchange(self.url.removesuffix("/v1") + "/version", None))["version"]
        except (UserError, httpx2.HTTPError, ValueError, LookupError, TypeError, RecursionError):
            return ""
        return found if isinstance(found, str) and found.isprintable() and len(found) < 100 else ""

    def ask(self, what: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the object that the server gives for a path, or in answer to an object.

        Raises:
            UserError: the server cannot be reached, does not answer in time, refuses ``what``, or answers nonsense.
        """
        import httpx2

        url = self.url + path
        try:
            found = json.loads(self._retries("asking the server", lambda: self._exchange(url, body)))
        except httpx2.HTTPStatusError as error:
            raise self._refused(what, url, error.response) from None
        except UserError as error:
            raise UserError(
                error.what,
                where=url,
                next_step=f"see the server's log, start it again ({GUIDE}); the same command goes on where it stopped",
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, RecursionError) as error:
            found = f"{type(error).__name__} {error}"
        if not isinstance(found, dict):
            raise UserError(
                f"the server's answer is no JSON object: {quoted(self.scrub(str(found)), 300)}",
                where=url,
                next_step="is this a server with OpenAI's protocol?",
            )
        return found

    def _exchange(self, url: str, body: dict[str, Any] | None) -> bytes:
        """Return what the server answers; raises httpx2's ``HTTPError`` where it cannot be reached, or refuses."""
        import httpx2

        content = bytearray()
        try:
            with self._client.stream("GET" if body is None else "POST", url, json=body) as response:
                if not response.is_success:
                    response.read()  # its text is told
                    response.raise_for_status()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER:
                        raise UserError(f"the server's answer has more than {MAX_ANSWER:,} bytes")
        except httpx2.ReadTimeout:
            raise UserError(f"the server answered nothing within {self.timeout:,.0f} s") from None
        return bytes(content)

    def _refused(self, what: str, url: str, response: httpx2.Response) -> UserError:
        if response.status_code in (401, 403):
            return UserError(
                f"the server does not accept the key (HTTP {response.status_code})"
                if self._key
                else "the server wants a key",
                where=url,
                next_step=f"put the one it was started with into the environment variable {KEY}",
            )
        return UserError(
            f"the server refuses {what} (HTTP {response.status_code}): {quoted(self.scrub(_message(response)), 300)}",
            where=url,
            next_step=f"is its base model the one of --base-model? is its --max-model-len enough? see {GUIDE}",
        )

    def _say(self, text: str) -> None:
        """Print a line about a wait; requests that wait for the same reason together are one line."""
        if time.monotonic() - self._said >= SAY_EVERY:
            self._said = time.monotonic()
            print(f"{printable_path(self.url)}: {text}", file=sys.stderr, flush=True)


def _message(response: httpx2.Response) -> str:
    """Return what a server says about a refusal, in one of the forms there are."""
    try:
        said = response.json()
        said = said.get("error", said)
        return str(said.get("message", said) if isinstance(said, dict) else said)
    except (ValueError, AttributeError, RecursionError):
        return response.text
