"""Which errors are tried again, how long is waited in between, and what is said of it."""

import errno
import json
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import tenacity
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from caef_data import retry
from caef_data.errors import UserError
from caef_data.retry import STATUSES, Retries, chain, is_transient, retry_after, status_of


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", waits.append)
    return waits


def http(status: int, **headers: str) -> HfHubHTTPError:
    """Return the error of the Hub's client for an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, headers=named, request=httpx2.Request("GET", "https://hub/api"))
    return HfHubHTTPError("from the server", response=response)


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def while_handling(outer: Exception, inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception:
            raise outer  # noqa: B904  (as a library that does not name the cause)
    except Exception as error:
        return error


def xet(text: str) -> ConnectionError:
    return ConnectionError(f"Network error: Request error: HTTP status {text}, domain: http://hub/xet-write-token")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 412, 416, 422, 425, 429, 500, 501, 502, 503, 504])
def test_statuses_of_every_client(status: int) -> None:
    for error in (
        http(status),
        caused(RuntimeError("Error while uploading"), http(status)),
        while_handling(OSError("translated"), http(status)),
        xet(f"client error ({status} Whatever)"),
    ):
        assert status_of(error) == status
        assert is_transient(error) == (status in STATUSES) == (status in {408, 425, 429, 500, 502, 503, 504})


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (BrokenPipeError(), True),
        (TimeoutError(), True),
        (httpx2.ReadTimeout("timed out"), True),
        (httpx2.ConnectError("refused"), True),
        (httpx2.RemoteProtocolError("Server disconnected"), True),
        (json.JSONDecodeError("Expecting value", "<html>", 0), True),
        (xet("server error (503 Service Unavailable)"), True),
        (caused(LocalEntryNotFoundError("no connection"), httpx2.ConnectError("refused")), True),
        (caused(LocalEntryNotFoundError("no such file"), http(404)), False),
        (caused(RuntimeError("Error while uploading"), TimeoutError()), True),
        (caused(httpx2.ConnectError("no name"), socket.gaierror(socket.EAI_AGAIN, "later")), True),
        (caused(httpx2.ConnectError("no name"), socket.gaierror(socket.EAI_NONAME, "nobody")), False),
        (httpx2.UnsupportedProtocol("ftp://"), False),
        (httpx2.LocalProtocolError("Illegal header value"), False),
        (OfflineModeIsEnabled("offline"), False),
        (caused(LocalEntryNotFoundError("offline"), OfflineModeIsEnabled("offline")), False),
        (xet("client error (401 Unauthorized)"), False),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("whatever"), False),
        (UserError("wrong"), False),
        (KeyError("url"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_passes_and_what_does_not(error: Exception, passes: bool) -> None:
    assert is_transient(error) is passes


def test_what_ends_the_process_is_no_error_that_passes() -> None:
    for end in (KeyboardInterrupt(), SystemExit(1), GeneratorExit()):
        end.__context__ = ConnectionResetError()
        assert not is_transient(end)


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    assert [str(error) for error in chain(one)] == ["one", "two"]
    assert not is_transient(one)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("0", 0), ("99999999999999999999", 600), ("-5", 0), ("soon", 0), ("", 0), ("1e9", 0)],
)
def test_retry_after_in_seconds(value: str, seconds: float) -> None:
    assert retry_after(caused(RuntimeError(), http(429, retry_after=value))) == seconds


def failing(*errors: BaseException) -> Callable[[], str]:
    """Return a step that raises these errors in turn, then succeeds."""
    left = list(errors)

    def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


def test_it_waits_longer_and_longer_and_says_so(slept: list[float]) -> None:
    said: list[str] = []
    retries = Retries("again", said.append)
    errors = [http(503), ConnectionResetError("gone"), TimeoutError(), http(429, retry_after="45"), http(500)]
    assert retries("the commit", failing(*errors)) == "done"
    assert len(said) == 5
    assert all(0.5 <= wait <= bound for wait, bound in zip(slept[:3], (1, 2, 4), strict=True))
    assert slept[3] == 45 and 0.5 <= slept[4] <= 16
    assert said[0].startswith("the commit: HTTP 503 (try 1 of 8); again in ")
    assert "ConnectionResetError 'gone' (try 2 of 8)" in said[1] and said[3].endswith("again in 45 s")


def test_it_gives_up_with_the_command_that_goes_on(slept: list[float]) -> None:
    said: list[str] = []
    retries = Retries("caef-data push data --repo user/name", said.append)
    with pytest.raises(UserError) as caught:
        retries("the commit", failing(*[http(503)] * 99))
    assert len(slept) == len(said) == retry.ATTEMPTS - 1
    assert max(slept) <= retry.LONGEST_DELAY
    assert "the commit failed 8 times; the last time: HTTP 503" in str(caught.value)
    assert "go on later with: caef-data push data --repo user/name" in str(caught.value)
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None


@pytest.mark.parametrize(
    "error", [http(401), http(403), http(404), ValueError("x"), KeyboardInterrupt(), UserError("x")]
)
def test_everything_else_comes_through_at_once(slept: list[float], error: BaseException) -> None:
    said: list[str] = []
    retries = Retries("again", said.append)
    with pytest.raises(type(error)) as caught:
        retries("a step", failing(error))
    assert caught.value is error and slept == said == []


def test_hostile_text_is_scrubbed_before_it_is_cut(slept: list[float]) -> None:
    said: list[str] = []
    error: Any = ConnectionResetError("\x1b[31m" + "x" * 85 + "hf_secretsecret" + "y" * 500)
    Retries("again", said.append, lambda text: text.replace("hf_secretsecret", "***"))("a step", failing(error))
    assert "\x1b" not in said[0] and "hf_" not in said[0] and len(said[0]) < 250


def test_answers_without_headers() -> None:
    error: Any = Exception()
    error.response = SimpleNamespace(status_code=503, headers=None)
    assert is_transient(error) and retry_after(error) == 0
