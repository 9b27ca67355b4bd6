"""Client processes of a test Hub: their environment, what their guard has seen, and calls into them."""

import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from .server import HubServer

GUARD = Path(__file__).parent / "guard"
ESCAPES, SLEEPS = "escapes.txt", "sleeps.txt"
STRANGE = ("HF_", "HUGGING", "TRANSFORMERS_", "DATASETS_")  # variables of the outer world that clients heed


def client_env(server: HubServer, home: Path, xet: bool = False, *, token: str | None = "") -> dict[str, str]:
    """Return the whole environment of a client process.

    The client sees this Hub alone, keeps everything under ``home`` (one per server and client: caches know repositories
    by name only), cannot leave the machine, and does not wait between tries. ``datasets`` asks a viewer service on
    another host when no revision is given: load by ``revision=`` a sha or a tag. Only one client at a time can use Xet:
    the store is locked while its process lives.

    Args:
        server: the Hub.
        home: a folder for the client's caches and the guard's notes; made if missing.
        xet: whether large files travel through Xet, else plain LFS.
        token: the client's token; ``""``: the server's own, that may write; None: none.
    """
    home.mkdir(parents=True, exist_ok=True)
    for name in (ESCAPES, SLEEPS):
        (home / name).touch()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(STRANGE) and not name.upper().endswith("_PROXY")
    }
    ours = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "NO_PROXY": "127.0.0.1,localhost",
        "USE_TORCH": "0",  # datasets would import it to stream, for seconds
        "PYTHONPATH": os.pathsep.join([str(GUARD), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "CAEF_TEST_ESCAPES": str(home / ESCAPES),
        "CAEF_TEST_SLEEPS": str(home / SLEEPS),
    }
    ours |= {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2", "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms"}
    if not xet:
        ours["HF_HUB_DISABLE_XET"] = "1"
    if token is not None:
        ours["HF_TOKEN"] = token or server.token
    return kept | ours


def escapes(home: Path) -> list[str]:
    """Return what a client (or its children) tried to reach off this machine; tests assert that it is empty."""
    return (home / ESCAPES).read_text().splitlines()


def sleeps(home: Path) -> list[tuple[str, float]]:
    """Return (module, seconds) of every pause that was asked for before another try, and skipped."""
    lines = (line.split() for line in (home / SLEEPS).read_text().splitlines())
    return [(module, float(seconds)) for module, seconds in lines]


class ClientError(Exception):
    """A call into a client raised.

    Attributes:
        chain: names of the exception's type and of those it came from.
        status: the HTTP status that one of them carries, or None.
    """

    def __init__(self, text: str, chain: list[str], status: int | None) -> None:
        super().__init__(text)
        self.chain, self.status = chain, status


class Client:
    """A client process that stays: importing the libraries takes longer than most of what a test asks of them.

    Args:
        env: its environment, of ``client_env``.
    """

    def __init__(self, env: dict[str, str]) -> None:
        driver = str(Path(__file__).parent / "driver.py")
        self._process = subprocess.Popen(
            [sys.executable, driver], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run a function of a test file in the client: its source travels, so it imports what it needs.

        Arguments travel as JSON, and so does what it returns (as its repr, where JSON has no word for it).

        Raises:
            ClientError: it raised.
            EOFError: the client died.
        """
        source = textwrap.dedent(inspect.getsource(function))
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps([source, function.__name__, args, options]), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise EOFError("the client is dead") from None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the client died")
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(*answer["error"])
        return answer["value"]
