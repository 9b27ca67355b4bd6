"""Pushes a built folder to a dataset repository of the Hugging Face Hub.

Bytes first, which nobody sees; then one commit on top of the one that was looked at, with shards, card and manifest,
and without stale shards; then every file of it is compared with the dataset; then the tag. Every step looks at what is
there before it acts, so that the same command goes on after a kill, a lost answer, or somebody else's commit.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError, printable_path, quoted
from ..card import first_split, from_folder
from ..manifest import CARD, MANIFEST
from ..settings import REPO
from ..store import open_folder
from .card import settled
from .dataset import Changes, Dataset, File, Pushed, compare, listed, manifest_there, open_dataset
from .hub_calls import HubCalls
from .progress import Progress

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.hf_api import RepoFile

MAX_OPERATIONS = 25_000  # files that the Hub takes in one commit
BATCH = 32  # files of one call that uploads; progress is shown after each
ROUNDS = 5  # commits tried while others keep moving the branch
MAIN = "main"
OTHERS = frozenset({".gitattributes", CARD})  # what a new repository holds
BRANCH = re.compile(r"(?!refs/)(?!.*(\.\.|//|/\.|\.lock(/|$)))[A-Za-z0-9_][\w./-]{0,99}(?<![./])", re.ASCII)


def push_to_hub(
    directory: str,
    repo: str | None,
    revision: str = MAIN,
    *,
    private: bool = False,
    dry_run: bool = False,
    again: str,
    progress: Progress,
) -> Pushed:
    """Push a folder to the Hub; the parameters are those of ``push_with_progress``.

    Raises:
        UserError: the folder is not finished or damaged; there is no token, or it may not write; the repository holds
            something else; the Hub cannot be reached; or what arrived is not what was sent.
    """
    named = open_folder(directory).manifest().get("repo", "")  # a damaged one is told first
    name = str(repo or named)
    if not name:
        raise UserError("push needs the name of a repository", next_step="add --repo user/name")
    if not REPO.fullmatch(name) or re.search(r"\.\.|--|[-.](/|$)|\.git$", name):
        raise UserError(
            f"{quoted(name)} cannot be the name of a repository",
            allowed="user/name: letters, digits, - _ . and no more than 96 of them",
        )
    if BRANCH.fullmatch(revision) is None:
        raise UserError(f"{quoted(revision)} cannot be a branch", allowed="letters, digits, _ . - and / inside")
    hub = HubCalls(name, again, progress.say)
    with open_dataset(directory, partial(from_folder, place=name), progress) as dataset, hub.quiet():
        return _Push(hub, dataset, revision, progress).run(private, dry_run)


@dataclass(frozen=True)
class State:
    """What a branch holds: its commit (None for a branch without one), its files by path; the repository's tags."""

    head: str | None
    files: dict[str, RepoFile]
    tags: dict[str, str]


class _Push:
    """One push of a checked dataset to one branch of a repository."""

    def __init__(self, hub: HubCalls, dataset: Dataset, branch: str, progress: Progress) -> None:
        self.hub, self.api = hub, hub.api
        self.dataset, self.branch, self.progress = dataset, branch, progress

    def run(self, private: bool, dry_run: bool) -> Pushed:
        """Push, or look only."""
        state = self.prepare(private, dry_run)
        self.settle(state)
        first = changes = self.compare(state)
        if len(changes.paths) > MAX_OPERATIONS:
            raise UserError(
                f"this push has {len(changes.paths):,} files, the Hub takes {MAX_OPERATIONS:,} in one commit",
                where=self.hub.url,
                next_step="build with more --rows-per-shard, push fewer tasks to a repository, or push --to a store",
            )
        tag, place = self.dataset.identity, self.hub.url + (f"/tree/{self.branch}" if self.branch != MAIN else "")
        load = from_folder(*first_split(self.dataset.manifest), self.hub.name)
        report = partial(Pushed, place, f'{load.removesuffix(")")}, revision="{tag}")', first)
        if dry_run:
            return report(dry_run=True, notes=self.dataset.notes)
        self.progress.begin(len(changes.moved), changes.bytes)
        for _ in range(ROUNDS):
            if changes.paths:
                made = self.commit(changes, state.head)
                state = self.look(self.branch) or state
                if made != state.head:
                    self.progress.say(f"{self.branch} has moved meanwhile; looking again")
                    self.settle(state)
                changes = self.compare(state)
                if made == state.head and changes.paths:
                    raise UserError(
                        f"what arrived is not what was sent: {listed(list(map(printable_path, changes.paths)))}",
                        where=f"{self.hub.url}, commit {printable_path(str(state.head))}; it is not tagged",
                        next_step=f"push again: {self.hub.again}",
                    )
            if not changes.paths:
                self.tag(tag, state, changed=bool(first.paths))
                return report(dry_run=False, notes={"commit": str(state.head), "tag": tag, **self.dataset.notes})
        raise UserError(
            f"others keep pushing to {self.branch}: {ROUNDS} commits came too late",
            where=self.hub.url,
            next_step=f"when they are done: {self.hub.again}",
        )

    # What is there

    def prepare(self, private: bool, dry_run: bool) -> State:
        """Make the repository and the branch where they are missing; return what the branch holds, or would hold."""
        state, branch = self.look(self.branch), self.branch
        if state is None and dry_run:
            return State(None, {}, {})
        if state is None:
            self.hub("making the repository", self.api.create_repo, private=private or None, exist_ok=True)
            state = self.look(branch)
        elif private and not self.hub("reading the repository", self.api.repo_info).private:
            raise UserError(
                f"{self.hub.name} exists and is public",
                next_step=f"make it private at {self.hub.url}/settings, or leave out --private",
            )
        if (state is None or state.head is None) and branch != MAIN:
            if dry_run:
                branch = MAIN
            else:
                self.hub("making the branch", self.api.create_branch, branch=branch, exist_ok=True)
            state = self.look(branch)
        card = self.addition(self.dataset.files[CARD])
        self.upload("testing the right to write", [card], branch)
        return state or State(None, {}, {})

    def look(self, branch: str) -> State | None:
        """Return what a branch holds; None where there is no repository that the token may see."""
        refs = self.hub("reading the repository", self.api.list_repo_refs, absent={404})
        if refs is None:
            return None
        head = next((one.target_commit for one in refs.branches if one.name == branch), None)
        tags = {one.name: one.target_commit for one in refs.tags}
        return State(head, self.files(head) if head is not None else {}, tags)

    def files(self, commit: str) -> dict[str, RepoFile]:
        """Return the files of a commit by path."""
        from huggingface_hub.hf_api import RepoFile

        def read(**options: Any) -> dict[str, RepoFile]:
            tree = self.api.list_repo_tree(**options)
            return {node.path: node for node in tree if isinstance(node, RepoFile)}

        return self.hub("listing the files", read, revision=commit, recursive=True)

    def settle(self, state: State) -> None:
        """Keep what a person wrote in the card there; refuse a conflict, and a repository that holds something else."""
        manifest = {}
        if state.files.keys() - OTHERS:
            manifest = manifest_there(self.read(MANIFEST, state), self.hub.url, "--repo")
        card, where = self.read(CARD, state), f"{self.hub.url}/blob/{self.branch}/{CARD}"
        self.dataset = settled(self.dataset, card, manifest, where)

    def read(self, path: str, state: State) -> bytes | None:
        """Return the bytes of a file; None where there is none."""
        if path not in state.files:
            return None
        place = self.hub(f"reading {path}", self.api.hf_hub_download, filename=path, revision=state.head)
        return Path(place).read_bytes()

    def compare(self, state: State) -> Changes:
        """Compare the dataset with what a commit holds."""
        same = {path for path, file in self.dataset.files.items() if self._same(file, state.files.get(path))}
        return compare(self.dataset.files, state.files, same)

    def _same(self, file: File, there: RepoFile | None) -> bool:
        if there is None or there.size != file.bytes:
            return False
        if there.lfs is not None:
            return there.lfs.sha256 == file.sha256
        content = self.dataset.texts.get(file.path) or self._local(file.path).read_bytes()  # a regular file is small
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return there.blob_id == git.hexdigest()

    def _local(self, path: str) -> Path:
        return (self.dataset.folder.path / path).resolve()  # the client would take a leading ~ for somebody's home

    # What is moved

    def commit(self, changes: Changes, parent: str | None) -> str | None:
        """Move what differs to the Hub, then make it the branch's next commit, and return that.

        Returns:
            None if the branch is no longer at ``parent``: by our commit, it may be, whose answer was lost.
        """
        from huggingface_hub import CommitOperationDelete

        additions: list[CommitOperationAdd] = []
        for start in range(0, len(changes.moved), BATCH):
            batch = changes.moved[start : start + BATCH]
            adding = [self.addition(file) for file in batch]
            more = f" and {len(batch) - 1} more" if batch[1:] else ""
            self.upload(f"uploading {batch[0].path}{more}", adding, self.branch)
            additions += adding
            for file in batch:
                self.progress.moved(file.path, file.bytes)
        done = self.hub(
            "the commit",
            self.api.create_commit,
            operations=[*additions, *map(CommitOperationDelete, changes.deleted)],
            commit_message=f"caef-data {self.dataset.identity}",
            revision=self.branch,
            parent_commit=parent,
            absent={409, 412},  # tried again after a commit whose answer was lost, it does not fit its parent any more
        )
        return None if done is None else str(done.oid)

    def upload(self, what: str, additions: list[CommitOperationAdd], revision: str) -> None:
        """Ask the Hub how it takes files, and move the bytes of large ones that it does not have.

        Nobody sees them before a commit names them; and a token that may only read is refused.
        """
        self.hub(
            what,
            self.api.preupload_lfs_files,
            additions=additions,
            revision=revision,
            gitignore_content="",  # one that lies there must not keep files out silently
            free_memory=False,
        )

    def addition(self, file: File) -> CommitOperationAdd:
        """Return the operation that adds a file; refuse one that is no longer what the manifest says."""
        from huggingface_hub import CommitOperationAdd

        try:
            adding = CommitOperationAdd(file.path, self.dataset.texts.get(file.path) or self._local(file.path))
            if adding.upload_info.sha256.hex() == file.sha256:
                return adding
        except (ValueError, OSError):
            pass
        raise UserError(
            "a file changed while it was being pushed",
            where=printable_path(file.path),
            next_step="caef-data verify, then push again",
        )

    def tag(self, tag: str, state: State, changed: bool) -> None:
        """Let a tag name the commit; one that names another commit with the same files stays there.

        So does one, unless this push ``changed`` something, at a commit where a person had not edited the card yet.
        """
        there = state.tags.get(tag)
        if there == state.head:
            return
        if there is not None:
            off = self.compare(State(there, self.files(there), {})).paths
            if not off or (not changed and off == [CARD]):
                return
            self.hub("the tag", self.api.delete_tag, tag=tag, absent={404})
        self.hub("the tag", self.api.create_tag, tag=tag, revision=state.head, exist_ok=True)
