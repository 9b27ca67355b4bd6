"""What the tests of ``caef-data push`` share: small datasets, and clients that push them to a test Hub."""

import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.store import open_folder
from caef_data.tests.hub.client import Client, client_env, escapes
from caef_data.tests.hub.server import HubServer
from caef_data.tests.hub.wire import Record

UPLOADS = ("lfs-put", "lfs-part", "lfs-complete", "xet-write-token")
WRITES = ("commit", "create-repo", "create-branch", "create-tag", "delete-tag", "merge", "create-discussion")


def make_folder(folder: Path, **settings: Any) -> Path:
    """Build a dataset of sub, a few kB in a few shards."""
    settings = {"min": 1, "max": 2, "num": 2, "views": ["one_step", "full"], **settings}
    build(make_plan(from_flags(["sub"], **settings)), folder, workers=1)
    return folder


def identity(folder: Path) -> str:
    return str(open_folder(folder).manifest()["identity"])


def shards(folder: Path) -> dict[str, bytes]:
    """Return a folder's shards by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/*.parquet")}


class Side:
    """A Hub, and a client process that pushes to it.

    Args:
        folder: for what both leave on disk.
        xet: whether shards travel through Xet.
        env: further variables of the client.
    """

    def __init__(self, folder: Path, xet: bool, env: Mapping[str, str] = MappingProxyType({})) -> None:
        self.hub, self.home, self.xet = HubServer(folder / "hub"), folder / "home", xet
        self.client = Client(client_env(self.hub, self.home, xet) | env)
        self.repos = 0

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *error: object) -> None:
        self.client.__exit__()
        self.hub.stop()

    def new(self) -> str:
        """Return the name of a repository that is not there."""
        self.repos += 1
        return f"user/data-{self.repos}"

    def seed(self, folder: Path) -> str:
        """Return a new repository that holds a folder, as if pushed."""
        repo, files = self.hub.add_repo(self.new()), [path for path in folder.rglob("*") if path.is_file()]
        made = self.hub.commit(repo.name, {path.relative_to(folder).as_posix(): path.read_bytes() for path in files})
        repo.tags[identity(folder)] = made.oid
        return repo.name

    def run(self, *words: object, **how: Any) -> "Done":
        """Run ``caef-data push`` in the client: see ``_run``; ``forked`` for a process of its own."""
        return self.command("push", *words, **how)

    def command(self, *words: object, **how: Any) -> "Done":
        """Run any command in the client, as ``run`` does."""
        before = len(self.hub.log)
        function = _run_forked if how.pop("forked", False) else _run
        code, out, err = self.client.call(function, [*map(str, words)], how)
        assert self.hub.token not in out + err
        return Done(code, out, err, self.hub.log[before:])

    def push(self, *words: object, **how: Any) -> "Done":
        """Run it where it must succeed."""
        done = self.run(*words, **how)
        assert done.code == 0, done.err
        return done

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal to the process of the ``forked`` run."""
        for child in psutil.Process(self.client.pid).children():
            child.send_signal(signum)

    def shards(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Return the shards of a repository by path, as they are stored."""
        files = self.hub.files(repo, revision)
        return {path: data for path, data in files.items() if path.endswith(".parquet")}

    def tags(self, repo: str) -> dict[str, str]:
        return dict(self.hub.repos[repo].tags)

    def check(self) -> None:
        """Nothing left the machine, and the Hub itself made no mistake."""
        assert escapes(self.home) == []
        assert self.hub.errors == []


class Done:
    """What became of a command: exit code (negative: a signal), its two outputs, and the requests that it made."""

    def __init__(self, code: int, out: str, err: str, log: list[Record]) -> None:
        self.code, self.out, self.err, self.log = code, out, err, log

    def requests(self, *endpoints: str) -> list[Record]:
        return [one for one in self.log if one.endpoint in endpoints]


# What runs in the client; the source of each function travels by itself.


def _run(words: list[str], how: dict[str, Any]) -> list[Any]:
    """Run the command line in this process.

    ``env`` holds variables (None: unset), ``settings`` constants of modules as ``module:NAME``.
    """
    import contextlib
    import importlib
    import io
    import os
    import sys
    import traceback

    from caef_data import cli

    out, err, code = io.StringIO(), io.StringIO(), 0
    before, environment = {}, dict(os.environ)
    for name, value in how.get("settings", {}).items():
        module, _, constant = name.partition(":")
        before[name] = getattr(importlib.import_module(module), constant)
        setattr(importlib.import_module(module), constant, value)
    for name, value in how.get("env", {}).items():
        os.environ.pop(name, None)
        os.environ.update({} if value is None else {name: value})
    sys.argv = ["caef-data", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        code, trace = 99, traceback.format_exc()
        err.write(trace)
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for name, value in before.items():
            module, _, constant = name.partition(":")
            setattr(importlib.import_module(module), constant, value)
    return [code, out.getvalue(), err.getvalue()]


def _run_forked(words: list[str], how: dict[str, Any]) -> list[Any]:
    """Run the command line in a child of this process, which may be killed."""
    import os
    import sys
    import tempfile

    from caef_data.__main__ import run

    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.argv = ["caef-data", *words]
                run()
            finally:
                os._exit(98)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return [code, out.read(), err.read()]
