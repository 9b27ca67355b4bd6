"""Loaded by every Python that a test starts as a client: nothing may leave this machine, and no time is slept away.

``CAEF_TEST_ESCAPES`` names a file that gets a line for every address off this machine that was asked for; asking
raises too. ``CAEF_TEST_SLEEPS`` names a file that gets a line, ``module seconds``, for every pause before another try;
the pause itself is skipped.
"""

import os
import sys
import time

BACKOFF = ("huggingface_hub.", "tenacity.", "datasets.utils.file_utils")  # who sleeps between tries
HERE = ("localhost", "::1", "")


def _append(variable: str, line: str) -> None:
    with open(os.environ[variable], "a") as file:  # one short write: lines of several processes do not mix
        file.write(f"{line}\n")


def _guard(event: str, args: tuple) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if not isinstance(args[1], tuple):  # a socket of this machine, or one that is connected already
            return
        host = args[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host or ""
    if name not in HERE and not name.startswith("127."):
        _append("CAEF_TEST_ESCAPES", f"{event} {name} {' '.join(sys.argv)[:200]}")
        raise PermissionError(f"a test must not leave this machine: {event} {name}")


def _skip(seconds: float, really=time.sleep) -> None:
    asker = sys._getframe(1).f_globals.get("__name__", "")
    if asker.startswith(BACKOFF):
        _append("CAEF_TEST_SLEEPS", f"{asker} {seconds}")
        seconds = 0
    really(seconds)


if os.environ.get("CAEF_TEST_ESCAPES"):
    sys.addaudithook(_guard)
if os.environ.get("CAEF_TEST_SLEEPS"):
    time.sleep = _skip
