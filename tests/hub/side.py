"""A Hub, a client of it, and files to push."""

import os
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from .calls import push
from .client import Client, client_env, escapes
from .repo import Repo
from .server import HubServer

CARD = """---
configs:
- config_name: a
  data_files:
  - {split: train, path: a/train-*.parquet}
  - {split: test, path: a/test-*.parquet}
---
# Numbers
"""


class Side:
    """A Hub, a client of it, and a folder of files to push."""

    def __init__(self, folder: Path, xet: bool) -> None:
        self.hub, self.home, self.data, self.xet = HubServer(folder / "hub"), folder / "home", folder / "data", xet
        env = client_env(self.hub, self.home, xet)
        self.client = Client(env | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"})
        (self.data / "a").mkdir(parents=True)
        numbers = {"train-0": range(20_000), "train-1": range(20_000, 25_000), "test-0": range(7)}
        for name, column in numbers.items():  # plain pages: the Xet store groups and compresses them
            pq.write_table(pa.table({"x": [*column]}), self.data / "a" / f"{name}.parquet", compression="none")
        (self.data / "README.md").write_text(CARD)
        noise, words = os.urandom(200_000), CARD.encode() * 1000
        (self.data / "noise.parquet").write_bytes(noise)  # it keeps these as they are, in several chunks
        (self.data / "words.parquet").write_bytes(words)  # it compresses these
        (self.data / "mixed.parquet").write_bytes(noise + words + noise)  # and finds again what it has

    @property
    def local(self) -> dict[str, bytes]:
        """The bytes of the local files, by path in the repository."""
        return {str(one.relative_to(self.data)): one.read_bytes() for one in self.data.rglob("*.*")}

    def files(self, name: str, rev: str = "main") -> dict[str, bytes]:
        """Return the files that clients brought into a repository."""
        return {path: data for path, data in self.hub.files(name, rev).items() if path != ".gitattributes"}

    def repo(self, name: str) -> Repo:
        """Return a repository of the Hub, new if need be."""
        return self.hub.repos.get(name) or self.hub.add_repo(name)

    def pushed(self, name: str) -> str:
        """Push the files into a repository, new if need be, and return the commit."""
        self.repo(name)
        return self.client.call(push, name, str(self.data))

    def check(self) -> None:
        """Check what must hold after every test."""
        assert self.hub.errors == []
        assert [one for one in self.hub.log if one.endpoint is None] == [], "a client asked for something unknown"
        assert list(self.hub.faults) == [], "a fault hit nothing"
        assert escapes(self.home) == []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.__exit__()
        self.hub.stop()
