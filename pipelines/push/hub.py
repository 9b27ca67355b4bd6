"""Pushes a built folder to a dataset repository of the Hugging Face Hub.

Bytes first, which nobody sees; then one commit on top of the one that was looked at, with shards, card and manifest,
and without stale shards; then every file of it is compared with the dataset; then the tag. Every step looks at what is
there before it acts, so that the same command goes on after a kill, a lost answer, or somebody else's commit.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError, printable_path, quoted
from ...retry import Retries, chain, status_of
from ..card import first_split, from_folder
from ..manifest import CARD, MANIFEST
from ..settings import REPO
from ..store import open_folder
from .dataset import Changes, Dataset, File, Progress, Pushed, PushSettings, listed, manifest_there, open_dataset

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.hf_api import RepoFile

MAX_OPERATIONS = 25_000  # files that the Hub takes in one commit
BATCH = 32  # files of one call that uploads; progress is shown after each
OTHERS = frozenset({".gitattributes", CARD})  # what a new repository holds
MAIN = "main"  # the branch that readers load from when they name none
QUERY = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\"]*")  # signed URLs carry the right to write in their query
SETTINGS = "https://huggingface.co/settings"


def push_to_hub(wanted: PushSettings, progress: Progress) -> Pushed:
    """Push a folder to the Hub.

    Raises:
        UserError: the folder is not finished or damaged; there is no token, or it may not write; the repository holds
            something else; the Hub cannot be reached; or what arrived is not what was sent.
    """
    manifest = open_folder(wanted.directory).manifest()  # a damaged one is told first
    name = str(wanted.repo or manifest.get("repo", ""))
    if not name:
        elsewhere = "add --repo user/name, or --to with the URL of a store (s3://bucket/prefix, file:///folder)"
        raise UserError("push needs the name of a repository", next_step=elsewhere)
    if not REPO.fullmatch(name) or re.search(r"\.\.|--|[-.](/|$)|\.git$", name):
        raise UserError(
            f"{quoted(name)} cannot be the name of a repository",
            allowed="user/name: letters, digits, - _ . and no more than 96 of them",
        )
    hub = HubCalls(name, wanted.again, progress.console.print)
    with open_dataset(wanted.directory, partial(from_folder, place=name), progress) as dataset, _quiet():
        return _Push(hub, dataset, wanted, progress).run()


class HubCalls:
    """Calls of huggingface_hub on one dataset repository: tried again where that may help, each refusal explained.

    Args:
        name: the dataset repository, ``user/name``.
        again: the command that goes on where this push stopped.
        say: told of waits.

    Raises:
        UserError: there is no token, or it cannot be one.
    """

    def __init__(self, name: str, again: str, say: Callable[[str], None]) -> None:
        from huggingface_hub import HfApi, get_token

        self.name, self.again, self._token = name, again, get_token() or ""
        if not re.fullmatch("[!-~]+", self._token):
            held = "the token for the Hub holds characters that no token has"
            next_step = f"make one that may write at {SETTINGS}/tokens, then: hf auth login, or set HF_TOKEN"
            raise UserError(held if self._token else "there is no token for the Hub", next_step=next_step)
        self.api = HfApi()
        self.url = f"{self.api.endpoint}/datasets/{name}"
        self._retries = Retries(again, say, self._scrub)

    def __call__(self, what: str, call: Callable[..., Any], *, absent: Collection[int] = (), **options: Any) -> Any:
        """Make an idempotent call about the repository, again after errors that are likely to pass.

        ``what`` names the step in messages; None is returned for the HTTP statuses in ``absent``.

        Raises:
            UserError: it failed; the text says why and what to do.
        """
        try:
            return self._retries(what, partial(call, repo_id=self.name, repo_type="dataset", **options))
        except UserError:
            raise
        except Exception as error:
            if status_of(error) in absent:
                return None
            raise self._explained(what, error) from None  # nothing of the client's own text may surface in a traceback

    def _explained(self, doing: str, error: Exception) -> UserError:
        """Return what the user can do about an error that no waiting mends."""
        status, words = status_of(error), [getattr(one, "server_message", None) for one in chain(error)]
        said = quoted(self._scrub(str(next(filter(None, words), error)).strip()), 300)
        token = f"take a token with the right to write ({SETTINGS}/tokens)"
        advice = {
            None: f"look at the network, HF_HUB_OFFLINE and HF_ENDPOINT ({printable_path(self.api.endpoint)})",
            401: f"{token}: hf auth login; HF_TOKEN, if set, goes before it",
            403: f"{token} to {self.name}, or make room ({SETTINGS}/billing)",
            404: "look at the spelling of --repo, and at what the token may reach",
        }.get(status, f"mend that, or make room ({SETTINGS}/billing)")
        what = f"the Hub refuses (HTTP {status}): {said}" if status else f"the Hub cannot be asked: {said}"
        return UserError(what, where=f"{doing}, {self.name}", next_step=f"{advice}; then: {self.again}")

    def _scrub(self, text: str) -> str:
        """Return a text that others wrote without what gives access to the Hub."""
        return QUERY.sub(r"\1", text.replace(self._token, "***"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's bars, log and warnings off the terminal: they may hold secrets, and cut through our bar."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger, bars = logging.getLogger("huggingface_hub"), not are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    disable_progress_bars()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()


class _Push:
    """One push of a checked dataset to a repository."""

    def __init__(self, hub: HubCalls, dataset: Dataset, wanted: PushSettings, progress: Progress) -> None:
        self.hub, self.api, self.wanted = hub, hub.api, wanted
        self.dataset, self.progress = dataset, progress
        self.head: str | None = None  # the commit of its branch
        self.there: dict[str, RepoFile] = {}  # its files, by path
        self.tags: dict[str, str] = {}  # the commits of the repository's tags

    def run(self) -> Pushed:
        """Push, or look only."""
        self.prepare()
        held = bool(self.there.keys() - OTHERS)
        manifest = manifest_there(self.read(MANIFEST), self.hub.url, "--repo") if held else {}
        where = f"{self.hub.url}/blob/{MAIN}/{CARD}"
        self.dataset = self.dataset.settled(self.read(CARD), manifest, where)
        changes, tag, notes = self.compare(self.there), self.dataset.identity, self.dataset.notes
        if len(changes.paths) > MAX_OPERATIONS:
            raise UserError(
                f"this push has {len(changes.paths):,} files, the Hub takes {MAX_OPERATIONS:,} in one commit",
                where=self.hub.url,
                next_step="build with more --rows-per-shard, push fewer tasks to a repository, or push --to a store",
            )
        if not self.wanted.dry_run:
            if changes.paths:
                self.commit(changes)
            self.tag(tag, changed=bool(changes.paths))
            notes = {"commit": str(self.head), "tag": tag, **notes}
        load = from_folder(*first_split(self.dataset.manifest), self.hub.name).removesuffix(")")
        return Pushed(self.hub.url, f'{load}, revision="{tag}")', changes, self.wanted.dry_run, notes)

    def prepare(self) -> None:
        """Make the repository where it is missing, and see whether the token may write there."""
        private = self.wanted.private
        if not self.look():
            if self.wanted.dry_run:
                return
            self.hub("making the repository", self.api.create_repo, private=private or None, exist_ok=True)
            self.look()
        elif private and not self.hub("reading the repository", self.api.repo_info).private:
            raise UserError(
                f"{self.hub.name} exists and is public",
                next_step=f"make it private at {self.hub.url}/settings, or leave out --private",
            )
        self.upload("testing the right to write", [self.addition(self.dataset.files[CARD])])

    def look(self) -> bool:
        """Note what the branch holds; tell whether there is a repository that the token may see."""
        refs = self.hub("reading the repository", self.api.list_repo_refs, absent={404})
        if refs is not None:
            self.head = next((one.target_commit for one in refs.branches if one.name == MAIN), None)
            self.there = self.files(self.head) if self.head is not None else {}
            self.tags = {one.name: one.target_commit for one in refs.tags}
        return refs is not None

    def files(self, commit: str) -> dict[str, RepoFile]:
        from huggingface_hub.hf_api import RepoFile

        nodes = self.hub(
            "listing the files", lambda **of: [*self.api.list_repo_tree(**of, recursive=True)], revision=commit
        )
        return {node.path: node for node in nodes if isinstance(node, RepoFile)}

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a file there; None where there is none."""
        if path not in self.there:
            return None
        place = self.hub(f"reading {path}", self.api.hf_hub_download, filename=path, revision=self.head)
        return Path(place).read_bytes()

    def compare(self, there: dict[str, RepoFile]) -> Changes:
        same = {path for path, file in self.dataset.files.items() if path in there and self._same(file, there[path])}
        return self.dataset.changes({path: file.size for path, file in there.items()}, same)

    def _same(self, file: File, there: RepoFile) -> bool:
        if there.size != file.bytes or there.lfs is not None:
            return there.lfs is not None and (there.size, there.lfs.sha256) == (file.bytes, file.sha256)
        content = self.dataset.texts.get(file.path) or self._local(file.path).read_bytes()  # a regular file is small
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return there.blob_id == git.hexdigest()

    def _local(self, path: str) -> Path:
        return (self.dataset.folder.path / path).resolve()  # the client would take a leading ~ for somebody's home

    def commit(self, changes: Changes) -> None:
        """Move what differs to the Hub, make it the branch's next commit, and compare that with what was sent."""
        from huggingface_hub import CommitOperationDelete

        self.progress.begin(changes.moved)
        additions: list[CommitOperationAdd] = []
        for start in range(0, len(changes.moved), BATCH):
            batch = changes.moved[start : start + BATCH]
            additions += [self.addition(file) for file in batch]
            more = f" and {len(batch) - 1} more" if batch[1:] else ""
            self.upload(f"uploading {batch[0].path}{more}", additions[start:])
            for file in batch:
                self.progress.done("uploaded", file)
        made = self.hub(
            "the commit",
            self.api.create_commit,
            operations=[*additions, *(CommitOperationDelete(file.path) for file in changes.deleted)],
            commit_message=f"caef-data {self.dataset.identity}",
            revision=MAIN,
            parent_commit=self.head,
            absent={409, 412},  # the branch has moved: by our own commit, it may be, whose answer was lost
        )
        self.look()
        if off := [printable_path(path) for path in self.compare(self.there).paths]:
            ours = made is not None and made.oid == self.head
            what = "what arrived is not what was sent" if ours else f"{MAIN} has moved meanwhile, by somebody else"
            raise UserError(
                f"{what}: {listed(off)}",
                where=f"{self.hub.url}, commit {printable_path(str(self.head))}; it is not tagged",
                next_step=f"push again: {self.hub.again}",
            )

    def upload(self, what: str, additions: list[CommitOperationAdd]) -> None:
        """Move the bytes of large files that the Hub does not have; a token that may only read is refused."""
        call = partial(self.api.preupload_lfs_files, additions=additions, revision=MAIN, free_memory=False)
        self.hub(what, call, gitignore_content="")  # one that lies there must not keep files out silently

    def addition(self, file: File) -> CommitOperationAdd:
        """Return the operation that adds a file; refuse one that is no longer what the manifest says."""
        from huggingface_hub import CommitOperationAdd

        with suppress(ValueError, OSError):
            adding = CommitOperationAdd(file.path, self.dataset.texts.get(file.path) or self._local(file.path))
            if adding.upload_info.sha256.hex() == file.sha256:
                return adding
        what, next_step = "a file changed while it was being pushed", "caef-data verify, then push again"
        raise UserError(what, where=printable_path(file.path), next_step=next_step)

    def tag(self, tag: str, changed: bool) -> None:
        """Let a tag name the commit; one that names another commit stays there unless this push ``changed`` something.

        There it names the same rows, with the card as it was.
        """
        there = self.tags.get(tag)
        if there == self.head or (there is not None and not changed):
            return
        if there is not None:
            self.hub("the tag", self.api.delete_tag, tag=tag, absent={404})
        self.hub("the tag", self.api.create_tag, tag=tag, revision=self.head, exist_ok=True)
