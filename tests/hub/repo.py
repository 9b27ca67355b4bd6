"""Repositories: immutable commits of content-addressed files, branches, tags, and pull requests."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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


@dataclass
class Discussion:
    """A discussion or a pull request; the commits of pull request N lie on ``refs/pr/N``."""

    num: int
    title: str
    author: str
    is_pull_request: bool
    status: str
    base: str  # the commit that it started from
    target: str = "main"  # the branch that it is for
    created: str = field(default_factory=now)
    events: list[dict[str, Any]] = field(default_factory=list)
    merge_oid: str | None = None

    def event(self, kind: str, data: dict[str, Any], author: str) -> dict[str, Any]:
        """Append an event and return it."""
        oid = hashlib.sha1(f"{self.num} {len(self.events)}".encode()).hexdigest()
        self.events.append(
            {"id": oid, "type": kind, "createdAt": now(), "author": {"name": author, "type": "user"}, "data": data}
        )
        return self.events[-1]

    def change_status(self, status: str, author: str) -> dict[str, Any]:
        """Set the status and return the event that says so."""
        self.status = status
        return self.event("status-change", {"status": status}, author)


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
        self.discussions: list[Discussion] = []
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

    def open_discussion(
        self, title: str, author: str, status: str, target: str | None, base: Commit | None = None
    ) -> Discussion:
        """Open a discussion, or a pull request for the branch ``target``; its own branch starts at ``base``."""
        start = (base or self.head(target or "main")).oid
        num = len(self.discussions) + 1
        discussion = Discussion(num, title, author, target is not None, status, start, target or "main")
        self.discussions.append(discussion)
        if target is not None:
            self.branches[f"refs/pr/{num}"] = start
        return discussion

    def discussion(self, num: int) -> Discussion:
        """Return a discussion or pull request by its number.

        Raises:
            Refusal: there is none.
        """
        if not 1 <= num <= len(self.discussions):
            raise Refusal(404, f"Discussion {num} not found", "DiscussionNotFound")
        return self.discussions[num - 1]

    def conflicts(self, pull: Discussion) -> list[str]:
        """Return the paths that a pull request and its target both changed since it was opened."""
        base, ours, theirs = (self.resolve(rev).tree for rev in (pull.base, f"refs/pr/{pull.num}", pull.target))
        paths = base.keys() | ours.keys() | theirs.keys()
        return sorted(p for p in paths if base.get(p) != ours.get(p) != theirs.get(p) != base.get(p))

    def merge(self, pull: Discussion, author: str) -> Commit:
        """Merge an open pull request into its target.

        Raises:
            Refusal: it is not open, changes nothing, or conflicts.
        """
        if not pull.is_pull_request or pull.status != "open":
            raise Refusal(400, f"only an open pull request can be merged; this one is {pull.status}")
        head, base = self.head(f"refs/pr/{pull.num}"), self.commits[pull.base]
        if head.oid == pull.base:
            raise Refusal(400, "this pull request has no changes")
        if found := self.conflicts(pull):
            raise Refusal(409, f"this pull request has conflicts: {', '.join(found[:5])}")
        tree = dict(self.head(pull.target).tree)
        for path in base.tree.keys() | head.tree.keys():
            if head.tree.get(path) != base.tree.get(path):
                tree.pop(path, None)
                if path in head.tree:
                    tree[path] = head.tree[path]
        summary = f"{pull.title} (#{pull.num})"
        merged = self.commit(pull.target, tree, summary=summary, description="", author=author)
        pull.merge_oid = merged.oid
        pull.change_status("merged", author)
        return merged
