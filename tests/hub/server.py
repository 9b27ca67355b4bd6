"""A small Hub on 127.0.0.1, for the unmodified clients of huggingface_hub and datasets.

It speaks what a push and a load need, in plain LFS and in Xet mode (through the local store that hf_xet brings), keeps
commits as snapshots, and goes wrong on demand: see ``Fault``. What it knows of the real Hub was read from the clients;
it cannot prove how the real one behaves.
"""

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from . import routes, storage  # noqa: F401  (they fill the table of endpoints)
from .faults import Fault, Faults
from .repo import Blob, Commit, Entry, Repo
from .sockets import Listener
from .wire import TABLE, Record

ENDPOINTS = {name: (one.method, one.pattern) for name, one in TABLE.items()}


@dataclass(frozen=True)
class Token:
    """Whom a token stands for; ``role``: ``write``, ``read`` or ``none`` (valid, and good for nothing)."""

    user: str
    role: str
    orgs: tuple[str, ...] = ()

    def can_read(self, namespace: str) -> bool:
        return self.role != "none" and namespace in (self.user, *self.orgs)

    def can_write(self, namespace: str) -> bool:
        return self.role == "write" and self.can_read(namespace)


class HubServer:
    """A Hub that answers from threads of this process.

    Args:
        root: an empty folder for what must lie on disk (the Xet store).

    Attributes:
        url: what ``HF_ENDPOINT`` must be.
        token: a token of the user ``user`` that may write.
        repos: repositories by name.
        faults: what goes wrong; see ``Fault``. Append to it at any time.
        log: every request so far, entered before its answer is sent.
        errors: tracebacks of the server's own mistakes; a test that ends with any is wrong.
        page_size: entries on a page of a tree.
        multipart_from, part_size: large files of at least so many bytes arrive in parts (None: never).
        lfs_from: files of at least so many bytes are large files; Parquet files always are.
        commit_limit: operations that a commit may hold.
        stall_limit: seconds that a ``stall`` lasts at most.
    """

    def __init__(self, root: Path) -> None:
        self.cas = root / "cas"
        self.cas.mkdir(parents=True)
        self.secret = secrets.token_hex(8)  # stands for the signature in the addresses of stored files
        self.tokens: dict[str, Token] = {}
        self.token = self.add_token("user")
        self.repos: dict[str, Repo] = {}
        self.faults = Faults()
        self.log: list[Record] = []
        self.errors: list[str] = []
        self.page_size = 1000
        self.multipart_from: int | None = None
        self.part_size = 1 << 16
        self.lfs_from = 10 << 20
        self.commit_limit = 25_000
        self.stall_limit = 10.0
        self.lock = threading.RLock()  # held while a request is served, and to be held by who changes things meanwhile
        self._port = 0
        self.start()
        self.url = f"http://127.0.0.1:{self._port}"
        self.storage_url = f"http://localhost:{self._port}/storage/{self.secret}"  # another origin, as on the real Hub

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen (again, at the same address)."""
        self._listener = Listener(self, self._port)
        self._port = self._listener.server_port

    def stop(self) -> None:
        """Hang up on everyone; nothing is forgotten."""
        self._listener.close()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Refuse connections for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def add_token(self, user: str, role: str = "write", orgs: tuple[str, ...] = ()) -> str:
        """Return a new token of ``user`` (who belongs to these organisations)."""
        token = f"hf_{secrets.token_hex(16)}"
        self.tokens[token] = Token(user, role, orgs)
        return token

    def add_repo(self, name: str, private: bool = False, kind: str = "dataset") -> Repo:
        """Create a repository; it starts with the commit that the Hub makes. Models are there to be read."""
        self.repos[name] = Repo(name, private, name.split("/")[0], kind)
        return self.repos[name]

    def commit(self, name: str, files: Mapping[str, bytes | None], branch: str = "main") -> Commit:
        """Commit as somebody else would; None deletes a file."""
        with self.lock:
            repo = self.repos[name]
            tree = dict(repo.head(branch).tree)
            for path, data in files.items():
                tree.pop(path, None)
                if data is not None:
                    tree[path] = Entry(Blob(data), path.endswith((".parquet", ".safetensors")))
            return repo.commit(branch, tree, summary="somebody else's", description="", author="somebody")

    def files(self, name: str, rev: str = "main") -> Mapping[str, bytes]:
        """Return the files of a commit as they are stored, by path."""
        with self.lock:
            tree = self.repos[name].resolve(rev).tree
        return MappingProxyType({path: entry.blob.data for path, entry in tree.items()})

    def fault(self, endpoint: str, kind: int | str, **settings: Any) -> Fault:
        """Put a fault on a named endpoint of ``ENDPOINTS``; return it, so that ``fired`` can be asked for."""
        method, pattern = ENDPOINTS[endpoint]
        fault = Fault(method, rf"\A(?:{pattern.pattern})\Z", kind, **settings)
        self.faults.append(fault)
        return fault

    def requests(self, *endpoints: str) -> list[Record]:
        """Return what the log says of these endpoints, or all of it."""
        return [one for one in list(self.log) if not endpoints or one.endpoint in endpoints]
