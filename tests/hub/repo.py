"""Repositories: immutable commits of content-addressed files, branches, tags."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any

from .wire import Refusal

GITATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"


def git_oid(data: bytes) -> str:
    """Return the id that git gives to a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def now() -> str:
    """Return the time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass(frozen=True)
class Blob:
    """Bytes as they are stored; every hash is computed from them. ``xet`` is their Xet hash, if they came that way."""

    data: bytes
    xet: str | None = None

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A file in a commit, kept in git itself or as a large file beside it."""

    blob: Blob
    large: bool

    @cached_property
    def oid(self) -> str:
        """What git calls it: the file's own id, or that of its pointer."""
        return git_oid(self.pointer if self.large else self.blob.data)

    @property
    def etag(self) -> str:
        """What a client compares with its own file: sha256 of a large file, git's id of another."""
        return self.blob.sha256 if self.large else self.oid

    @property
    def pointer(self) -> bytes:
        lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.blob.sha256}")
        return "\n".join((*lines, f"size {len(self.blob.data)}", "")).encode()

    def node(self, path: str) -> dict[str, Any]:
        """Return the description of this file in listings."""
        node = {"type": "file", "path": path, "oid": self.oid, "size": len(self.blob.data)}
        if self.large:
            node["lfs"] = {"oid": self.blob.sha256, "size": len(self.blob.data), "pointerSize": len(self.pointer)}
        if self.blob.xet:
            node["xetHash"] = self.blob.xet
        return node


Tree = Mapping[str, Entry]


@dataclass(frozen=True)
class Commit:
    """A snapshot that never changes."""

    oid: str
    parent: "Commit | None"
    summary: str
    description: str
    author: str
    date: str
    tree: Tree

    @property
    def history(self) -> Iterator["Commit"]:
        """Yield this commit and those before it, newest first."""
        commit: Commit | None = self
        while commit is not None:
            yield commit
            commit = commit.parent

    def folder(self, path: str, recursive: bool) -> list[dict[str, Any]]:
        """Return the nodes under a folder (``""``: the root), in order of their paths.

        Raises:
            Refusal: there is no such folder.
        """
        start = f"{path}/" if path else ""
        nodes: dict[str, dict[str, Any]] = {}
        for name, entry in self.tree.items():
            if not name.startswith(start):
                continue
            parts = name[len(start) :].split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                folder = start + "/".join(parts[:depth])
                nodes[folder] = {"type": "directory", "path": folder, "oid": git_oid(folder.encode()), "size": 0}
            if recursive or len(parts) == 1:
                nodes[name] = entry.node(name)
        if not nodes and path:
            raise Refusal(404, f'"{path}" does not exist on "{self.oid}"', "EntryNotFound")
        return [nodes[name] for name in sorted(nodes)]


class Repo:
    """A repository of a dataset, or of a model. Callers hold the server's lock.

    Attributes:
        gated: everyone may see what it holds, and nobody may have it.
    """

    def __init__(self, name: str, private: bool, author: str, kind: str = "dataset") -> None:
        self.name, self.private, self.created, self.kind, self.gated = name, private, now(), kind, False
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.blobs: dict[str, Blob] = {}  # by the sha256 that the client claimed: a damaged upload stays findable
        self.parts: dict[str, dict[int, bytes]] = {}  # of unfinished multipart uploads, by claimed sha256
        first = self._new_commit(
            None, "initial commit", "", author, {".gitattributes": Entry(Blob(GITATTRIBUTES), False)}
        )
        self.branches["main"] = first.oid

    def _new_commit(self, parent: Commit | None, summary: str, description: str, author: str, tree: Tree) -> Commit:
        listing = "".join(f"{path} {entry.oid}\n" for path, entry in sorted(tree.items()))
        what = f"{parent and parent.oid} {len(self.commits)} {summary} {now()}\n{listing}"
        oid = hashlib.sha1(what.encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, summary, description, author, now(), MappingProxyType(dict(tree)))
        return self.commits[oid]

    def resolve(self, rev: str) -> Commit:
        """Return the commit that a branch, a tag, ``refs/...``, or the first 7 or more digits of a sha name.

        Raises:
            Refusal: nothing has this name.
        """
        short = rev.removeprefix("refs/heads/").removeprefix("refs/tags/")
        oid = self.branches.get(short) or self.tags.get(short)
        if oid is None and len(rev) >= 7:
            oid = next((one for one in self.commits if one.startswith(rev)), None)
        if oid is None:
            raise Refusal(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        return self.commits[oid]

    def head(self, branch: str) -> Commit:
        """Return the newest commit of a branch (``main``, ``refs/pr/1``).

        Raises:
            Refusal: it is no branch.
        """
        if branch not in self.branches:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        return self.commits[self.branches[branch]]

    def commit(self, branch: str, tree: Tree, *, summary: str, description: str, author: str) -> Commit:
        """Move a branch to a new commit with this tree."""
        commit = self._new_commit(self.head(branch), summary, description, author, tree)
        self.branches[branch] = commit.oid
        return commit
