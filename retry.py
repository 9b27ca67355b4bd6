"""Tries a step that asks a server again, where an error is likely to pass."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import tenacity

from .errors import UserError, quoted

T = TypeVar("T")

ATTEMPTS = 8  # tries of one step
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds; each delay is drawn below a bound that doubles from try to try
LONGEST_RETRY_AFTER = 600.0  # seconds; a server that asks for more is asked again by then

# Time-outs, too early, too many requests, and what servers and the proxies before them say in a bad minute.
STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# Errors of a connection that no waiting mends: the request itself is wrong, or the user wants no network.
LASTING = ("UnsupportedProtocol", "LocalProtocolError", "OfflineModeIsEnabled")
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
        status = getattr(getattr(one, "response", None), "status_code", None)
        if type(one) is ConnectionError and (match := XET_STATUS.search(str(one))):
            status = int(match[1])
        if isinstance(status, int):
            return status
    return None


def is_transient(error: BaseException) -> bool:
    """Tell whether the same step may well succeed a little later."""
    errors = list(chain(error))
    if unknown_host(error) or any(type(one).__name__ in LASTING or not isinstance(one, Exception) for one in errors):
        return False
    status = status_of(error)
    return status in STATUSES if status is not None else any(map(_lost, errors))


def unknown_host(error: BaseException) -> bool:
    """Tell whether the server's name is known to nobody; that no name can be looked up just now is another error."""
    return any(isinstance(one, socket.gaierror) and one.errno == socket.EAI_NONAME for one in chain(error))


def _lost(error: BaseException) -> bool:
    """Tell whether an error says that no answer came, or that it was cut short or a proxy's page."""
    import httpx2

    return isinstance(error, ConnectionError | TimeoutError | json.JSONDecodeError | httpx2.TransportError)


def retry_after(error: BaseException) -> float:
    """Return the seconds that a server asks to wait, at most ``LONGEST_RETRY_AFTER``; 0 where it says nothing."""
    for one in chain(error):
        headers = getattr(getattr(one, "response", None), "headers", None) or {}
        value = str(headers.get("retry-after", "")).strip()
        if value.isascii() and value.isdigit():
            return min(float(value[:9]), LONGEST_RETRY_AFTER)
    return 0.0


class Retries:
    """Runs steps, each again after errors that are likely to pass.

    Args:
        again: the command that goes on where the work stopped.
        say: told of every wait; what failed, and for how long.
        scrub: takes secrets out of what others wrote, before it is cut to size and shown.
    """

    def __init__(self, again: str, say: Callable[[str], None], scrub: Callable[[str], str] = str) -> None:
        self.again, self._say, self._scrub = again, say, scrub

    def __call__(self, what: str, work: Callable[[], T]) -> T:
        """Run a step that may have run before, to its end even, with an answer that was lost.

        Raises:
            UserError: it failed ``ATTEMPTS`` times.
            Exception: whatever else the step raises, at once.
        """

        def tell(state: tenacity.RetryCallState) -> None:
            tries = f"try {state.attempt_number} of {ATTEMPTS}"
            self._say(f"{what}: {self._reason(state)} ({tries}); again in {state.upcoming_sleep:,.0f} s")

        def give_up(state: tenacity.RetryCallState) -> NoReturn:
            raise UserError(
                f"{what} failed {state.attempt_number} times; the last time: {self._reason(state)}",
                next_step=f"go on later with: {self.again}",
            ) from None

        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=_delay,
            retry=tenacity.retry_if_exception(is_transient),
            before_sleep=tell,
            retry_error_callback=give_up,
        )(work)

    def _reason(self, state: tenacity.RetryCallState) -> str:
        """Return what an error is about, short and safe to print."""
        error = _error(state)
        status = status_of(error)
        if status is not None:
            return f"HTTP {status}"
        root = [one for one in chain(error) if _lost(one)][-1]
        text = self._scrub(str(root).strip())
        return type(root).__name__ + (f" {quoted(text, 100)}" if text else "")


def _error(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    return error or RuntimeError("no error")


def _delay(state: tenacity.RetryCallState) -> float:
    drawn = tenacity.wait_random_exponential(multiplier=FIRST_DELAY, max=LONGEST_DELAY, min=FIRST_DELAY / 2)(state)
    return max(drawn, retry_after(_error(state)))
