"""The Hub as a place to read from: a repository's files at one commit, in the cache of huggingface_hub.

Names are ``hf://datasets/user/name@revision/folder``, ``hf://user/name`` for a model, or short ``user/name@revision``.
Only files of the kinds in ``KINDS`` are downloaded; nothing that was downloaded is ever run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError, installed, printable_path, quoted
from .manifest import CARD, MANIFEST

if TYPE_CHECKING:
    from huggingface_hub import ResolvedRevision

Kind = Literal["model", "dataset"]
Say = Callable[[str], object]
KINDS = (".json", ".jsonl", ".safetensors", ".parquet", ".txt", ".model", ".jinja")  # configs, tokenizers, data
SHORT = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[^\s@]+)?", re.ASCII)
PREFIX = {"model": "hf://", "dataset": "hf://datasets/"}
TIMEOUT = 30.0  # seconds that the Hub may take to say which commit a revision is


@dataclass(frozen=True)
class HubPlace:
    """A repository of the Hub, or a folder in it."""

    kind: Kind
    name: str  # user/name; old models have a name of one part
    revision: str | None = None  # branch, tag or commit; None for the main branch
    inside: str = ""  # the folder; empty for all of it
    option: str | None = None  # where the user named it, for messages
    short: bool = False  # it was named without hf://, and could have been a folder

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX[self.kind]}{self.name}{revision}/{self.inside}".rstrip("/")

    @property
    def repo(self) -> dict[str, Any]:
        """The repository, as the calls of the Hub's client name it."""
        return {"repo_id": self.name, "repo_type": self.kind}

    @property
    def start(self) -> str:
        """How the paths of its files begin inside the repository."""
        return f"{self.inside}/" if self.inside else ""


@dataclass(frozen=True)
class HubFiles:
    """The files of one commit that may be downloaded."""

    place: HubPlace  # with the commit as its revision
    revision: ResolvedRevision  # the commit, for the calls of the Hub's client
    sizes: Mapping[str, int]  # bytes of each file below the place, by its path from there
    offline: bool  # the Hub could not be reached: only what the cache holds can be had


def hub_place(text: str, kind: Kind, option: str | None = None) -> HubPlace | None:
    """Return the place on the Hub that a text names, given with an option; None where it names a path.

    Raises:
        UserError: it begins with ``hf://`` and names no repository of this kind.
    """
    short = SHORT.fullmatch(text) is not None
    if not short and not text.startswith("hf://"):
        return None
    where, allowed = printable_path(text), f"{PREFIX[kind]}user/name, with @revision and /folder behind it if need be"
    with installed(f"reading {where} from the Hub", "hub"):
        from huggingface_hub import parse_hf_uri
        from huggingface_hub.errors import HfUriError
    try:
        uri = parse_hf_uri(PREFIX[kind] + text if short else text)
    except HfUriError as error:
        if short:  # it looked like a name, and can be none
            return None
        what = f"this names nothing on the Hub: {quoted(str(error), 200)}"
        raise UserError(what, where=where, allowed=allowed) from error
    if uri.type != kind:
        raise UserError(f"a {kind} is needed here, this names a {uri.type}", where=where, allowed=allowed)
    for path in (uri.path_in_repo, uri.revision or ""):
        _check_path(path, text)
    return HubPlace(kind, uri.id, uri.revision, uri.path_in_repo.rstrip("/"), option, short)


def local_or_hub(text: str, kind: Kind, option: str, say: Say) -> Path | HubPlace:
    """Return the path that a text names, or the place on the Hub; what exists here is meant before the Hub's.

    Raises:
        UserError: it begins with ``hf://`` and names no repository of this kind.
    """
    path = Path(os.path.expanduser(text))
    if text.startswith("hf://") or not os.path.lexists(path):
        return hub_place(text, kind, option) or path
    if SHORT.fullmatch(text):
        name = printable_path(text)
        say(f"{option} {name} is read from this machine; for the Hub's: {PREFIX[kind]}{name}")
    return path


def look_up(place: HubPlace, say: Say) -> HubFiles:
    """Find out which commit a place is and which of its files may be downloaded; nothing is downloaded.

    Without the Hub, the cache answers, and that is said.

    Raises:
        UserError: there is no such repository, revision or folder that the user may see, or no answer and nothing in
            the cache; or the repository names files outside of it.
    """
    with _explained(place):
        revision, offline = _resolve(place)
        listed = _listed(place, revision, offline)
    inside = {path.removeprefix(place.start): size for path, size in listed.items() if path.startswith(place.start)}
    sizes = {path: size for path, size in inside.items() if path.endswith(KINDS) or os.path.basename(path) == CARD}
    for path in sizes:
        _check_path(path, str(place))
    commit = replace(place, revision=str(revision.resolved))
    if offline:
        say(f"the Hub cannot be reached: {commit} is read from this machine's cache")
    if not sizes:
        what = f"there is nothing here that could be read: no {', no '.join(KINDS)}"
        raise UserError(what, where=f"{place.option or ''} {place}")
    return HubFiles(commit, revision, sizes, offline)


def _resolve(place: HubPlace) -> tuple[ResolvedRevision, bool]:
    """Return the commit of a place, and whether the cache had to tell it."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api, offline = HfApi(), False
    try:
        api.repo_info(**place.repo, revision=place.revision, timeout=TIMEOUT)
    except (httpx2.TransportError, OfflineModeIsEnabled):
        offline = True
    except HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        offline = True
    return api.resolve_revision(**place.repo, revision=place.revision, local_files_only=offline), offline


def _listed(place: HubPlace, revision: ResolvedRevision, offline: bool) -> dict[str, int]:
    """Return the bytes of each file of a commit by its path; of those in the cache alone, where no list is known."""
    from huggingface_hub import HfApi, get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.hf_api import RepoFile

    try:
        nodes: list[Any] = get_cached_repo_tree(**place.repo, revision=revision)  # a commit never changes
    except CachedRepoTreeNotFoundError:
        if offline:
            folder = Path(snapshot_download(**place.repo, revision=revision, local_files_only=True))
            paths = [path for path in folder.rglob("*") if path.is_file()]
            return {str(path.relative_to(folder)): path.stat().st_size for path in paths}
        nodes = list(HfApi().list_repo_tree(**place.repo, revision=revision.resolved, recursive=True))
    return {node.path: int(node.size) for node in nodes if isinstance(node, RepoFile)}


def download(files: HubFiles, wanted: Callable[[str], bool]) -> Path:
    """Download what is not in the cache yet; return the folder of the place.

    Args:
        files: of ``look_up``.
        wanted: tells of a path below the place whether its file is needed.

    Raises:
        UserError: a file cannot be had, or none is wanted.
    """
    place, paths = files.place, [path for path in files.sizes if wanted(path)]
    if not paths:
        raise UserError("nothing here is what is looked for", where=f"{place.option or ''} {place}".strip())
    with _explained(place):
        from huggingface_hub import snapshot_download

        which = {"allow_patterns": _patterns(place.start, paths), "revision": files.revision}
        folder = snapshot_download(**place.repo, **which, local_files_only=files.offline)
    return Path(folder) / place.inside


def _patterns(start: str, paths: list[str]) -> list[str]:
    """Return patterns that these paths match, and few others: one a folder and kind where they are many."""
    if len(paths) <= 100:
        return [escape(start + path) for path in paths]
    kinds = {(os.path.dirname(path), os.path.splitext(path)[1]) for path in paths}
    return [f"{escape(os.path.join(start, folder, ''))}*{kind}" for folder, kind in sorted(kinds)]


def _check_path(path: str, where: str) -> None:
    """Refuse a path that leads out of its repository, or that a terminal would not show as it is."""
    parts = path.rstrip("/").split("/") if path else []
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or not path.isprintable():
        what = f"this repository names a file that is not inside it: {quoted(path)}"
        raise UserError(what, where=printable_path(where), next_step="leave it alone")


@contextmanager
def _explained(place: HubPlace) -> Iterator[None]:
    """Turn what the Hub's client raises into one message."""
    import httpx2
    from huggingface_hub import errors

    not_held = (errors.RevisionResolutionError, errors.CachedRepoTreeNotFoundError, errors.LocalEntryNotFoundError)
    silent = (*not_held, errors.OfflineModeIsEnabled, httpx2.TransportError)
    try:
        yield
    except (*silent, httpx2.HTTPError, OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the disk is full, the cache may not be written
        down = getattr(getattr(error, "response", None), "status_code", 0) >= 500
        no_folder = f"; and there is no folder {printable_path(place.name)} here" if place.short else ""
        reasons = (
            (errors.IncompleteSnapshotError, "it cannot be reached, and this machine's cache holds only a part of it"),
            (silent, f"it cannot be reached, and this machine's cache does not hold it{no_folder}"),
            (errors.GatedRepoError, "it is gated: ask its owners for access on its page"),
            (errors.RevisionNotFoundError, f"it has no revision {quoted(place.revision)}"),
            (errors.RepositoryNotFoundError, f"there is none that you may see{no_folder}"),
            (Exception, quoted(str(error).strip().partition("\n")[0], 200)),
        )
        reason = next(text for kind, text in reasons if isinstance(error, kind) or (down and kind is silent))
        raise UserError(
            f"the {place.kind} {place.name} cannot be had from the Hub: {reason}",
            where=place.option,
            next_step="look at the spelling and the network (HF_HUB_OFFLINE); log in where it is private: hf auth login"
            " (HF_TOKEN, if set, goes before it); or name a folder",
        ) from error


def dataset_here(text: str, say: Say, *, shards: Callable[[str], bool]) -> str:
    """Return the folder of a built dataset that a text names: of a place on the Hub, its copy in the cache.

    Args:
        text: a path, the URL of a store, or ``hf://datasets/user/name``.
        say: is told where the cache answers in place of the Hub.
        shards: tells of a Parquet file's path in the dataset whether it is needed.

    Raises:
        UserError: it is on the Hub and cannot be had, or is no dataset of ours.
    """
    place = hub_place(text, "dataset") if text.startswith("hf://") else None
    if place is None:
        return text
    files = look_up(place, say)
    if MANIFEST not in files.sizes:
        raise UserError(
            f"this holds no dataset that caef-data built: there is no {MANIFEST}",
            where=str(place),
            next_step="if it lies in a folder of the repository, name that: hf://datasets/user/name/folder",
        )
    return str(download(files, lambda path: path in (MANIFEST, CARD) or (is_parquet(path) and shards(path))))


def is_parquet(path: str) -> bool:
    """Tell whether a path inside a dataset is that of a Parquet file in a folder of its own."""
    return path.count("/") == 1 and path.endswith(".parquet")
