"""A dataset repository of the Hub: what it holds, and the single calls that change it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .client import HubClient, Refused

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.hf_api import RepoFile

KIND: Any = {"repo_type": "dataset"}


@dataclass(frozen=True)
class State:
    """What a branch holds: its commit (None for a branch without one), and its files by path."""

    head: str | None
    files: dict[str, RepoFile]


class Repository:
    """Reads and changes a dataset repository.

    Args:
        client: calls the Hub.
        name: ``user/name``.
    """

    def __init__(self, client: HubClient, name: str) -> None:
        self.client, self.api, self.name = client, client.api, name

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self.api.endpoint}/datasets/{self.name}"

    # Reading: every call is tried again

    def refs(self, passing: Collection[int] = ()) -> dict[str, str]:
        """Return the commits of all branches, tags and pull requests, by their full names (``refs/heads/main``).

        Raises:
            Refused: the Hub answered with a status of ``passing``.
        """

        def read() -> dict[str, str]:
            refs = self.api.list_repo_refs(self.name, include_pull_requests=True, **KIND)
            return {ref.ref: ref.target_commit for ref in (*refs.branches, *refs.tags, *(refs.pull_requests or []))}

        return self.client("reading the repository", read, passing=passing)

    def refs_if_any(self) -> dict[str, str] | None:
        """Return what ``refs`` does; None where there is no repository that the token may see."""
        try:
            return self.refs(passing={404})
        except Refused:
            return None

    def head(self, revision: str) -> str | None:
        """Return the commit of a branch, or of a pull request's (``refs/pr/N``); None where there is none."""
        return self.refs().get(full_name(revision))

    def state(self, commit: str | None) -> State:
        """Return what a commit holds."""
        from huggingface_hub.hf_api import RepoFile

        if commit is None:
            return State(None, {})

        def read() -> dict[str, RepoFile]:
            nodes = self.api.list_repo_tree(self.name, recursive=True, revision=commit, **KIND)
            return {node.path: node for node in nodes if isinstance(node, RepoFile)}

        return State(commit, self.client("reading the list of files", read))

    def download(self, path: str, commit: str | None, folder: str) -> bytes:
        """Return a small file of a commit; it comes through a folder, past the client's cache."""
        get = partial(self.api.hf_hub_download, self.name, path, revision=commit, local_dir=folder, **KIND)
        return Path(self.client(f"reading {path}", partial(get, force_download=True))).read_bytes()

    def is_private(self) -> bool:
        """Tell whether only some may see it."""
        return bool(self.client("reading the repository", partial(self.api.dataset_info, self.name)).private)

    # Changing

    def make(self, private: bool) -> None:
        """Make the repository, unless it is there."""
        make = partial(self.api.create_repo, self.name, private=private or None, exist_ok=True, **KIND)
        self.client("making the repository", make)

    def make_branch(self, name: str) -> None:
        """Make a branch that starts at main, unless it is there."""
        make = partial(self.api.create_branch, self.name, branch=name, exist_ok=True, **KIND)
        self.client("making the branch", make)

    def upload(self, what: str, additions: Sequence[CommitOperationAdd], revision: str) -> None:
        """Ask the Hub how it takes files, and move the bytes of large ones that it does not have."""
        move = partial(self.api.preupload_lfs_files, self.name, additions, revision=revision, **KIND)
        # An empty .gitignore: one that lies there must not keep files out silently.
        self.client(what, partial(move, gitignore_content="", free_memory=False))

    def commit(
        self,
        operations: Sequence[CommitOperationAdd | CommitOperationDelete],
        title: str,
        revision: str,
        parent: str | None,
        *,
        propose: bool = False,
    ) -> int:
        """Commit files whose bytes are there. It is tried once: only who calls knows when to try again.

        Args:
            operations: what to add and delete; additions are spent by it.
            title: of the commit.
            revision: the branch.
            parent: the commit that the branch must be at.
            propose: open a pull request with this commit instead.

        Returns:
            The number of the pull request; 0 if there is none.
        """
        done = self.api.create_commit(
            self.name,
            operations,
            commit_message=title,
            revision=revision,
            parent_commit=parent,
            create_pr=propose,
            **KIND,
        )
        return done.pr_num or 0


def full_name(revision: str) -> str:
    """Return the full name of a branch, or of a pull request's."""
    return revision if revision.startswith("refs/") else f"refs/heads/{revision}"


def git_sha1(content: bytes) -> str:
    """Return git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
