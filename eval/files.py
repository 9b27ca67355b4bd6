"""Files of models on disk: JSON, safetensors, their hashes; what is wrong with one is told in a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import atomic
from ..errors import UserError, printable_path, quoted

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# Files that a tokenizer is read from; one of the first five holds its vocabulary.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
TOKENIZER = (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
CHAT_TEMPLATE = "chat_template.jinja"  # of a tokenizer, in a file beside it
HASHED_AT_ONCE = 4


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn a failure to read a file into a message.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{printable_path(path.name)} cannot be read: {quoted(reason, 200)}", where=printable_path(path.parent)
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        UserError: there is no such file, it cannot be read, or it holds something else.
    """
    if not path.is_file():  # a pipe of that name would be waited for
        raise UserError(f"there is no file {printable_path(path.name)}", where=printable_path(path.parent))
    with readable(path):
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
    return found


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a safetensors file; no weight is read.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with readable(path), safe_open(path, "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(
            f"{printable_path(path.name)} is damaged, or no safetensors file: {quoted(error, 200)}",
            where=printable_path(path.parent),
            next_step="copy or download it again",
        ) from error


@dataclass(frozen=True)
class HashedFiles:
    """Files of a folder, and what they held.

    Args:
        folder: where they lie.
        states: of each its name, inode, size in bytes and time of change in ns, from before they were read.
        sha256: hash of their names and contents.
    """

    folder: Path
    states: tuple[tuple[str, int, int, int], ...]
    sha256: str

    @classmethod
    def of(cls, folder: Path, names: Iterable[str]) -> HashedFiles:
        """Hash files; raises UserError where one cannot be read."""
        chosen = list(names)
        states = _states(folder, chosen)
        return cls(folder, states, hash_of(folder, chosen))

    def check_unchanged(self) -> None:
        """Refuse files that were written since they were hashed: what was loaded has another hash.

        Raises:
            UserError: one was.
        """
        names = [name for name, *_ in self.states]
        if (now := _states(self.folder, names)) == self.states:
            return
        moved = [(name, *state) for name, _, *state in now] == [(name, *state) for name, _, *state in self.states]
        if not (moved and hash_of(self.folder, names) == self.sha256):  # some network disks number files anew
            what = "files of the model were written while it was loaded: nobody knows what would be evaluated"
            raise UserError(what, where=printable_path(self.folder), next_step="run the same command again")


def _states(folder: Path, names: Iterable[str]) -> tuple[tuple[str, int, int, int], ...]:
    with readable(folder):
        found = [(name, (folder / name).stat()) for name in names]
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in found)


def hash_of(folder: Path, names: Iterable[str]) -> str:
    """Return a hash of the names and contents of some files of a folder.

    Raises:
        UserError: one cannot be read.
    """
    chosen = list(names)
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        digests = pool.map(_sha256_of, [folder / name for name in chosen])
        told = "".join(f"{name} {digest}\n" for name, digest in zip(chosen, digests, strict=True))
    return hashlib.sha256(told.encode()).hexdigest()


def _sha256_of(path: Path) -> str:
    with readable(path), path.open("rb") as file:
        return atomic.sha256_of(file)


def pickled(folder: Path, whose: str) -> UserError | None:
    """Return the refusal of a folder whose weights are pickled; None where there are none."""
    with readable(folder):
        held = sorted(path.name for path in folder.iterdir() if path.name.endswith(PICKLES))
    if not held:
        return None
    return UserError(
        f"the weights of {whose} are in {quoted(held[0])}, which is not read: unpickling a file runs what is in it",
        where=printable_path(folder),
        allowed="safetensors",
        next_step="load it where you trust it, and save it again: model.save_pretrained(folder)",
    )
