"""Tries the steps of a push again where an error is likely to pass: what those errors are, and how long it waits."""

from __future__ import annotations

import errno
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar

import tenacity

from .errors import UserError, clip

T = TypeVar("T")

ATTEMPTS = 8  # tries of one step
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds; each delay is drawn below a bound that doubles from try to try
LONGEST_RETRY_AFTER = 600.0  # seconds; a server that asks for more is asked again by then

# Time-outs, too early, too many requests, and what servers and the proxies before them say in a bad minute.
STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# By name, of any class that an error derives from: none of these packages is imported for a look at an error.
NAMES = frozenset(
    {
        "httpx2.TransportError",
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "aiohttp.ServerTimeoutError",
        "botocore.ConnectionError",
        "botocore.ConnectionClosedError",
        "botocore.HTTPClientError",
        "botocore.IncompleteReadError",
        "botocore.ResponseStreamingError",
        "urllib3.HTTPError",
    }
)
# Errors of those kinds that no waiting mends: the request itself is wrong, or the user wants no network.
LASTING = frozenset({"httpx2.UnsupportedProtocol", "httpx2.LocalProtocolError", "huggingface_hub.OfflineModeIsEnabled"})
ERRNOS = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH})
# Stores that answer a time-out or an overload with a code of their own under a status that says something else.
CODES = frozenset({"RequestTimeout", "RequestTimeoutException", "SlowDown", "Throttling", "ThrottlingException"})

XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})\b")  # hf_xet raises ConnectionError whatever was answered


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from or while handling, the outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error is about; None where no server answered."""
    for one in chain(error):
        response = getattr(one, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(response, dict):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        elif response is None:
            status = getattr(one, "status", None)  # aiohttp
        if type(one) is ConnectionError and (match := XET_STATUS.search(str(one))):
            status = int(match[1])
        if isinstance(status, int):
            return status
    return None


def is_transient(error: BaseException) -> bool:
    """Tell whether the same step may well succeed a little later."""
    if unknown_host(error) or any(_names(one) & LASTING or not isinstance(one, Exception) for one in chain(error)):
        return False
    if any(_code(one) in CODES for one in chain(error)):
        return True
    status = status_of(error)
    if status is not None:
        return status in STATUSES
    return any(_lost(one) for one in chain(error))


def unknown_host(error: BaseException) -> bool:
    """Tell whether the server's name is known to nobody; that no name can be looked up just now is another error."""
    return any(isinstance(one, socket.gaierror) and one.errno == socket.EAI_NONAME for one in chain(error))


def _lost(error: BaseException) -> bool:
    """Tell whether an error says that no answer came, or that it was cut short."""
    if isinstance(error, ConnectionError | TimeoutError | json.JSONDecodeError) or _names(error) & NAMES:
        return True  # text that is no JSON: a page of a proxy, whose status the client did not look at
    return isinstance(error, OSError) and error.errno in ERRNOS


def _names(error: BaseException) -> set[str]:
    return {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}


def _code(error: BaseException) -> str | None:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def retry_after(error: BaseException) -> float:
    """Return the seconds that a server asks to wait, at most ``LONGEST_RETRY_AFTER``; 0 where it says nothing."""
    for one in chain(error):
        response = getattr(one, "response", None)
        headers: Any = getattr(response, "headers", None)
        if isinstance(response, dict):  # botocore; its names of headers are in lower case
            headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
        value = (headers or {}).get("retry-after")
        if value is not None:
            return min(max(_seconds(str(value).strip()), 0.0), LONGEST_RETRY_AFTER)
    return 0.0


def _seconds(value: str) -> float:
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


class Retries:
    """Runs the steps of one push, each again after errors that are likely to pass.

    Args:
        again: the command that goes on where a push stopped.
        say: told of every wait; what failed, and for how long.
        scrub: takes secrets out of what others wrote, before it is cut to size and shown.
    """

    def __init__(
        self, again: str, say: Callable[[str], None] = lambda text: None, scrub: Callable[[str], str] = str
    ) -> None:
        self.count = 0
        self.again, self._say, self._scrub = again, say, scrub
        self._lock = threading.Lock()

    def note(self) -> None:
        """Count a retry that a library made by itself."""
        with self._lock:
            self.count += 1

    def __call__(self, what: str, work: Callable[[], T], also: Collection[int] = ()) -> T:
        """Run an idempotent step, again after errors that are likely to pass.

        Args:
            what: names the step in messages.
            work: the step; it may have run before, to its end even, with an answer that was lost.
            also: HTTP statuses that another try may mend here.

        Raises:
            UserError: it failed ``ATTEMPTS`` times.
            Exception: whatever else the step raises, at once.
        """
        handled = sys.exception()

        def once() -> T:
            try:
                return work()
            except Exception as error:
                for one in chain(error):
                    if one.__context__ is handled:
                        one.__context__ = None  # what the caller was handling is not why this step failed
                raise

        def passes(error: BaseException) -> bool:
            return is_transient(error) or (isinstance(error, Exception) and status_of(error) in also)

        def tell(state: tenacity.RetryCallState) -> None:
            self.note()
            error, delay = _error(state), state.upcoming_sleep
            tries = f"try {state.attempt_number} of {ATTEMPTS}"
            self._say(f"{what}: {self.reason(error)} ({tries}); again in {delay:,.0f} s")

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=_delay,
            retry=tenacity.retry_if_exception(passes),
            before_sleep=tell,
            retry_error_callback=self._give_up(what),
        )
        return retrying(once)

    def reason(self, error: BaseException) -> str:
        """Return what an error is about, short and safe to print."""
        status = status_of(error)
        if status is not None:
            return f"HTTP {status}"
        root = [one for one in chain(error) if _lost(one)][-1:] or [error]
        text = self._scrub(str(root[0]).strip())
        return type(root[0]).__name__ + (f" {clip(text, 100)}" if text else "")

    def _give_up(self, what: str) -> Callable[[tenacity.RetryCallState], NoReturn]:
        def stop(state: tenacity.RetryCallState) -> NoReturn:
            raise UserError(
                f"{what} failed {state.attempt_number} times; the last time: {self.reason(_error(state))}",
                next_step=f"go on later with: {self.again}",
            ) from None

        return stop


def _error(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    return error or RuntimeError("no error")


def _delay(state: tenacity.RetryCallState) -> float:
    drawn = tenacity.wait_random_exponential(multiplier=FIRST_DELAY, max=LONGEST_DELAY, min=FIRST_DELAY / 2)(state)
    return max(drawn, retry_after(_error(state)))
