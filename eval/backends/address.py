"""The address of a server, checked before anything is asked. Imports nothing heavy."""

from __future__ import annotations

from urllib.parse import urlsplit

from ...errors import UserError, clip

KEY = "OPENAI_API_KEY"  # the environment variable that holds a server's key


def base_url(endpoint: str) -> str:
    """Return the address that the protocol's paths are appended to: it ends in ``/v1``.

    Raises:
        UserError: this is no address of a server.
    """
    allowed = "http://localhost:8000, or https://host/v1"
    try:
        parts = urlsplit(endpoint)
        host = (parts.hostname, parts.port)  # looking at the port checks it
    except ValueError as error:
        raise UserError(f"this is no address: {clip(error, 80)}", where="--endpoint", allowed=allowed) from error
    if parts.username or parts.password:
        raise UserError(
            "the address holds a name or password, which tables and messages would show",
            where="--endpoint",
            next_step=f"put the key into the environment variable {KEY}",
        )
    if parts.scheme not in ("http", "https") or not host[0] or parts.query or parts.fragment:
        raise UserError(f"{clip(endpoint)} is no address of a server", where="--endpoint", allowed=allowed)
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else path + '/v1'}"
