"""Faults as data: what goes wrong, on which requests, how often."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

FOREVER = 10**9
STATUSES = (401, 403, 404, 408, 412, 425, 429, 500, 502, 503, 504)
KINDS = ("drop", "reset", "stall", "lost", "corrupt", "truncate", "meanwhile")


@dataclass(eq=False)
class Fault:
    """Something that goes wrong on matching requests.

    Args:
        method: method of the requests, or ``*``.
        path: regular expression that is searched in their path (as sent, quoted, without the query).
        kind: a status code that is answered instead of doing the work, or one of
            ``drop`` (the request is read, the connection closed without an answer),
            ``reset`` (the connection is reset while the body is on its way),
            ``stall`` (nothing is answered until the client hangs up or the server's ``stall_limit`` is over),
            ``lost`` (the work is done, the answer dropped),
            ``corrupt`` (one bit flips: in the first bytes that the request stores, else in the answer),
            ``truncate`` (half is missing: of the first bytes that the request stores, else of the answer, whose
            connection closes early),
            ``meanwhile`` (nothing by itself: ``action`` happens, then the request is served).
        times: how many requests it hits.
        after: how many matching requests pass before.
        retry_after: value of the ``Retry-After`` header of a status; a 429 always has one.
        message: error text of a status; ``{authorization}`` in it becomes the request's own header.
        code: what tells a status apart, as ``RepoNotFound``.
        action: called in the server's thread when the fault hits, before the work, or after that of a ``lost``
            answer: another client's commit, ``os.kill`` of the client ...
    """

    method: str
    path: str
    kind: int | str
    times: int = 1
    after: int = 0
    retry_after: str | int | None = None
    message: str = "fault injected"
    code: str | None = None
    action: Callable[[], object] = lambda: None
    fired: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS and not (isinstance(self.kind, int) and 400 <= self.kind < 600):
            raise ValueError(f"no such kind of fault: {self.kind!r}")
        if self.kind == 429 and self.retry_after is None:
            self.retry_after = 1

    def matches(self, method: str, path: str) -> bool:
        """Say whether a request is of those that this fault is for."""
        return self.method in ("*", method) and re.search(self.path, path) is not None


class Faults(list[Fault]):
    """The faults that wait for their requests; tests may add to it and clear it at any time."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def take(self, method: str, path: str) -> Fault | None:
        """Return the first fault that hits this request, and count it; a fault that is used up goes.

        A request hits one fault at most, and counts for ``after`` of all that wait.
        """
        with self._lock:
            hit = None
            for fault in [one for one in self if one.matches(method, path)]:
                if fault.after > 0:
                    fault.after -= 1
                elif hit is None:
                    hit = fault
            if hit is not None:
                hit.fired += 1
                hit.times -= 1
                if hit.times <= 0:
                    self.remove(hit)
            return hit


def flip(data: bytes) -> bytes:
    """Return ``data`` with one bit of its middle byte changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


def halve(data: bytes) -> bytes:
    """Return the first half of ``data``."""
    return data[: len(data) // 2]


SPOIL = {"corrupt": flip, "truncate": halve}
