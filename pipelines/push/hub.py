"""Pushes a built folder to a dataset repository of the Hugging Face Hub.

Blobs first, which nobody sees; then one commit that brings shards, card, manifest and the end of stale shards together;
then every file of that commit is compared with the manifest; then the tag. Every step looks at what is there before it
acts, so that the same command goes on after a kill, a lost answer, or somebody else's commit.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError, clip
from ..card import first_split, from_folder
from ..folder import open_folder, shown
from ..local_folder import LocalFolder
from ..manifest import CARD, MANIFEST
from .card import settled
from .client import HubClient, Refused
from .dataset import SHOWN, Changes, Dataset, File, Progress, Pushed, compare, open_dataset
from .pull_request import merge_in_parts
from .repository import KIND, Repository, State, full_name, git_sha1

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.hf_api import RepoFile

MAX_OPERATIONS = 25_000  # files that the Hub takes in one commit
BATCH_FILES, BATCH_BYTES = 32, 128_000_000  # of one call that uploads; progress is shown after each
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
    """Push a folder to the Hub.

    Args:
        directory: the folder.
        repo: a dataset repository, ``user/name``; if None the one that the folder's manifest names.
        revision: the branch, made where it is missing.
        private: make the repository private, if it has to be made.
        dry_run: say what would change, and change nothing.
        again: the command that goes on where this one stopped, for messages.
        progress: told how far it is.

    Raises:
        UserError: the folder is not finished or damaged; there is no token, or it may not write; the repository holds
            something else; the Hub cannot be reached; or what arrived is not what was sent.
    """
    repo = _repo(directory, repo)
    if BRANCH.fullmatch(revision) is None:
        raise UserError(f"{clip(revision)} cannot be a branch", allowed="letters, digits, _ . - and / inside")
    with open_dataset(directory, partial(from_folder, place=repo), progress.check) as dataset:
        client = HubClient(repo, again, progress)
        with client.quiet():
            return HubPush(Repository(client, repo), dataset, revision, progress).run(private, dry_run)


def _repo(directory: str, repo: str | None) -> str:
    """Return the repository's name, once it can be one."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    name = str(repo or open_folder(directory).manifest().get("repo", ""))
    if not name:
        raise UserError("push needs the name of a repository", next_step="add --repo user/name")
    try:
        validate_repo_id(name)
        if name.count("/") == 1:
            return name
    except HFValidationError:
        pass
    raise UserError(
        f"{clip(name)} cannot be the name of a repository",
        allowed="user/name: letters, digits, - _ . and no more than 96 of them",
    )


class HubPush:
    """One push of a checked dataset to one branch of a repository."""

    def __init__(self, repo: Repository, dataset: Dataset, branch: str, progress: Progress) -> None:
        self.repo, self.client, self.api = repo, repo.client, repo.api
        self.branch, self.progress = branch, progress
        self.looked_at: set[str | None] = set()  # commits whose cards were
        self.take(dataset)
        self.title = f"caef-data {dataset.identity}"  # of our commits and pull requests

    def run(self, private: bool, dry_run: bool) -> Pushed:
        """Push, or look only."""
        self.client("asking whom the token belongs to", partial(self.api.whoami, cache=True))
        refs = self.prepare(private, dry_run)
        base = self.branch if full_name(self.branch) in refs else MAIN  # a branch that a dry run does not make
        first = self.repo.state(refs.get(full_name(base)))
        if first.head is not None:
            self.try_to_write(base)
        self.settle(first)
        changes = self.compare(first)
        place = self.repo.url if self.branch == MAIN else f"{self.repo.url}/tree/{self.branch}"
        tag = self.dataset.identity
        load = from_folder(*first_split(self.dataset.manifest), self.repo.name)
        report = partial(Pushed, place, f'{load.removesuffix(")")}, revision="{tag}")', changes)
        if dry_run:
            return report(self.client.retries.count, dry_run=True, notes=self.dataset.notes)
        self.progress.begin(changes.moved)
        head = self.publish(first)
        self.tag(tag, head, changed=bool(changes))
        notes = {"commit": head, "tag": tag, **self.dataset.notes}
        return report(self.client.retries.count, dry_run=False, notes=notes)

    # What is there

    def prepare(self, private: bool, dry_run: bool) -> dict[str, str]:
        """Make the repository and the branch where they are missing; return the commits of branches and tags.

        Returns:
            Nothing in a dry run, if there is no repository.
        """
        refs = self.repo.refs_if_any()
        if refs is None:
            if dry_run:
                return {}
            self.repo.make(private)
            refs = self.repo.refs()
        if private and not self.repo.is_private():
            raise UserError(
                f"{self.repo.name} exists and is public",
                next_step=f"make it private at {self.repo.url}/settings, or leave out --private",
            )
        if self.branch != MAIN and full_name(self.branch) not in refs and not dry_run:
            self.repo.make_branch(self.branch)
            refs = self.repo.refs()
        return refs

    def try_to_write(self, branch: str) -> None:
        """Ask the Hub how it would take the card: nothing moves, and a token that may only read is refused."""
        from huggingface_hub import CommitOperationAdd

        card = CommitOperationAdd(CARD, self.dataset.texts[CARD])
        self.repo.upload("testing the right to write", [card], branch)

    def manifest(self, state: State) -> dict[str, Any]:
        """Return the manifest of a commit; an empty one where there is nothing yet.

        Raises:
            UserError: it holds something else: files, but no manifest of ours.
        """
        if not state.files.keys() - OTHERS:
            return {}
        why = ""
        if MANIFEST in state.files:
            with tempfile.TemporaryDirectory() as place:
                self.repo.download(MANIFEST, state.head, place)
                try:
                    return LocalFolder(Path(place)).manifest()
                except UserError as error:
                    why = f": {error.what}"
        raise UserError(
            f"this repository holds something else{why}",
            where=self.repo.url,
            next_step="choose another --repo; this one is left alone",
        )

    def take(self, dataset: Dataset) -> None:
        """Push this dataset from now on."""
        self.dataset, self.wanted = dataset, dataset.files
        self.additions: dict[str, CommitOperationAdd] = {}  # by path; made once: each reads its file whole

    def settle(self, state: State) -> None:
        """Keep what a person wrote in the card of a commit.

        Raises:
            UserError: it cannot be kept beside what a person wrote in the card of the folder; or the repository holds
                something else.
        """
        if state.head in self.looked_at:
            return
        self.looked_at.add(state.head)
        manifest, card = self.manifest(state), None
        if CARD in state.files:
            with tempfile.TemporaryDirectory() as place:
                card = self.repo.download(CARD, state.head, place)
        self.take(settled(self.dataset, card, manifest, f"{self.repo.url}/blob/{self.branch}/{CARD}"))

    def compare(self, state: State) -> Changes:
        """Compare the dataset with what a commit holds."""
        same = {path for path, file in self.wanted.items() if self._same(file, state.files.get(path))}
        return compare(self.wanted, state.files, same)

    def _same(self, file: File, there: RepoFile | None) -> bool:
        if there is None or there.size != file.bytes:
            return False
        if there.lfs is not None:
            return there.lfs.sha256 == file.sha256
        text = self.dataset.texts.get(file.path)  # what lies there as a regular file is small
        return there.blob_id == git_sha1(self._local(file.path).read_bytes() if text is None else text)

    # What is moved

    def publish(self, state: State) -> str:
        """Bring the branch to the dataset; return its commit, whose files were all compared with the manifest.

        Raises:
            UserError: what arrived differs, or others keep moving the branch.
        """
        for _ in range(ROUNDS):
            self.settle(state)
            changes = self.compare(state)
            if changes:
                landed = self.commit(state, changes)
                state = self.repo.state(self.repo.head(self.branch))
                if not landed:
                    self.progress.say(f"{self.branch} has moved meanwhile; looking again")
                    continue
            self.check(state)
            return str(state.head)
        raise UserError(
            f"others keep pushing to {self.branch}: {ROUNDS} commits came too late",
            where=self.repo.url,
            next_step=f"when they are done: {self.client.retries.again}",
        )

    def commit(self, state: State, changes: Changes) -> bool:
        """Move what differs to the Hub, then make it the branch's next commit.

        Returns:
            False if the branch is no longer at ``state``; by our commit, it may be, whose answer was lost.
        """
        try:
            if changes.operations > MAX_OPERATIONS:
                merge_in_parts(self, state, MAX_OPERATIONS)
            else:
                self.upload(changes.moved, self.branch)
                self.commit_to(self.branch, changes, state.head)
        except Refused:
            return False
        return True

    def upload(self, files: Sequence[File], revision: str) -> None:
        """Move the bytes of files to the Hub, where nobody sees them before a commit names them.

        Raises:
            UserError: a file is no longer what the manifest says.
        """
        for batch in _batches(files):
            additions = [self.addition(file) for file in batch]
            more = f" and {len(batch) - 1} more" if batch[1:] else ""
            self.repo.upload(f"uploading {batch[0].path}{more}", additions, revision)
            for file, addition in zip(batch, additions, strict=True):
                if addition.upload_info.sha256.hex() != file.sha256:
                    raise _changed(file)
                self.progress.moved(file)

    def addition(self, file: File) -> CommitOperationAdd:
        """Return the operation that adds a file; the same one until a commit takes it."""
        from huggingface_hub import CommitOperationAdd

        if file.path not in self.additions:
            content = self.dataset.texts.get(file.path) or self._local(file.path)
            try:
                self.additions[file.path] = CommitOperationAdd(file.path, content)
            except (ValueError, OSError):
                raise _changed(file) from None
        return self.additions[file.path]

    def _local(self, path: str) -> Path:
        return (self.dataset.folder.path / path).resolve()  # the client would take a leading ~ for somebody's home

    def operations(self, changes: Changes) -> list[CommitOperationAdd | CommitOperationDelete]:
        """Return what a commit of changes consists of."""
        from huggingface_hub import CommitOperationDelete

        additions = [self.addition(file) for file in changes.moved]
        self.additions.clear()  # they know what the branch held, and the client commits none of them twice
        return [*additions, *map(CommitOperationDelete, changes.deleted)]

    def commit_to(self, revision: str, changes: Changes, parent: str | None) -> None:
        """Commit changes whose bytes are there to a branch.

        Raises:
            Refused: the branch is not at ``parent``, or no longer.
        """
        commit = partial(self.repo.commit, self.operations(changes), self.title, revision, parent)
        # Tried again after a commit that landed, with its answer lost, it does not fit its parent any more.
        self.client("the commit", commit, passing={409, 412})

    # What follows

    def check(self, state: State) -> None:
        """Compare every file of a commit with the manifest; card and manifest are read back.

        Raises:
            UserError: they differ.
        """
        off = self.compare(state)
        paths = [file.path for file in off.moved] + list(off.deleted)
        if not paths:
            with tempfile.TemporaryDirectory() as place:
                texts = self.dataset.texts.items()
                paths = [path for path, text in texts if self.repo.download(path, state.head, place) != text]
        if paths:
            more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
            raise UserError(
                f"what arrived is not what was sent: {', '.join(map(shown, paths[:SHOWN]))}{more}",
                where=f"{self.repo.url}, commit {shown(str(state.head))}; it is not tagged",
                next_step=f"push again: {self.client.retries.again}",
            )

    def tag(self, tag: str, head: str, changed: bool) -> None:
        """Let a tag name a commit; one that names another commit with the same files stays there.

        Args:
            tag: the tag.
            head: the commit.
            changed: this push has made a commit; else it may also stay where a person had not edited the card yet.
        """
        name = f"refs/tags/{tag}"
        there = self.repo.refs().get(name)
        if there == head:
            return
        if there is not None:
            off = self.compare(self.repo.state(there))
            if not off or (not changed and [file.path for file in off.moved] == [CARD] and not off.deleted):
                return

        def once() -> None:
            there = self.repo.refs().get(name)
            if there == head:
                return
            if there is not None:
                self.api.delete_tag(self.repo.name, tag=tag, **KIND)
            self.api.create_tag(self.repo.name, tag=tag, revision=head, **KIND)

        self.client("the tag", once, also={409})  # it is there after all: look where


def _batches(files: Sequence[File]) -> Iterator[list[File]]:
    """Cut files into parts of at most ``BATCH_FILES`` and about ``BATCH_BYTES``."""
    batch: list[File] = []
    for file in files:
        if batch and (len(batch) == BATCH_FILES or sum(one.bytes for one in batch) + file.bytes > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _changed(file: File) -> UserError:
    return UserError(
        "a file changed while it was being pushed",
        where=shown(file.path),
        next_step="caef-data verify, then push again",
    )
