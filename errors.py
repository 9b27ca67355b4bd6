"""The one error type that a user sees."""

import difflib
import errno
import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Integral

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NUMBER = re.compile(r"(?:\(os error |\[Errno )(\d+)[)\]]")
_CUT = ("unexpected pos", "PytorchStreamWriter failed writing", "iostream error")  # torch.save's words, all it says
_WORD = r"(?:[\w@%+=:,./-]|'[^']*'|\"'\")+"  # as shlex.quote writes it: nothing in it means anything to a shell


class UserError(Exception):
    """Something the user gave, or the machine lacks, stops the work.

    The command line prints it without a traceback and exits with code 2.

    Args:
        what: what is wrong, one sentence.
        where: the file, line, option or expression it was found in.
        allowed: the values that would be accepted.
        next_step: a command or an action that gets the user on.
    """

    def __init__(
        self, what: str, *, where: str | None = None, allowed: str | None = None, next_step: str | None = None
    ) -> None:
        self.what, self.where, self.allowed, self.next_step = what, where, allowed, next_step
        more = (("  where:   ", where), ("  allowed: ", allowed), ("  next:    ", next_step))
        super().__init__("\n".join([what, *(f"{name}{text}" for name, text in more if text)]))

    def __reduce__(self) -> tuple[object, ...]:  # errors cross process borders
        return partial(type(self), where=self.where, allowed=self.allowed, next_step=self.next_step), (self.what,)


def quoted(text: object, width: int = 60) -> str:
    """Return ``text`` as an escaped, quoted literal of at most about ``width`` characters, safe to print."""
    text = os.fspath(text) if isinstance(text, os.PathLike) else text
    if isinstance(text, int) and text.bit_length() > 10_000:  # Python refuses to print such numbers
        return f"a number of about {int(text.bit_length() * 0.30103):,} digits"
    shown = ascii(text if len(str(text)) <= width else str(text)[:width])
    return shown if len(str(text)) <= width else f"{shown}... ({len(str(text)):,} characters)"


def is_whole(value: object, least: int, most: int = 2**63 - 1) -> bool:
    """Tell whether a value is a whole number, of Python or numpy, that is neither too small nor too large."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def whole_number(name: str, value: object, least: int, most: int = 2**63 - 1, more: str = "") -> int:
    """Return a whole number that somebody gave; raises UserError where it is none. ``more`` may be given, too."""
    if not is_whole(value, least, most):
        raise UserError(f"{name} is {quoted(value)}", allowed=f"a whole number from {least:,} to {most:,}{more}")
    return int(value)  # type: ignore[call-overload]


def printable_path(path: str | os.PathLike[str]) -> str:
    """Return a path for a message: as it is, or escaped where it would break the line or the terminal."""
    text = os.fspath(path)
    return text if text.isprintable() and len(text) <= 300 else quoted(text, 300)


def shell_quoted(path: str | os.PathLike[str]) -> str:
    """Return a path as a shell takes it; escaped where a terminal could not show it."""
    text = os.fspath(path)
    return shlex.quote(text) if text.isprintable() else printable_path(text)


def is_ours(command: str, verb: str) -> bool:
    """Tell whether a command line that a file holds is one or several of ``caef-data <verb>``, and nothing else."""
    one = rf"caef-data {verb}(?: {_WORD})*"
    return re.fullmatch(rf"{one}(?: && {one})*", command, re.ASCII) is not None


def suggested(command: str | None, verb: str, otherwise: str) -> str:
    """Return a command line that a file holds, to be typed again; ``otherwise`` where it is not one of ours."""
    return command if command and command.isprintable() and is_ours(command, verb) else otherwise


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest choice, or an empty string."""
    close = closest(word, choices)
    return f" (did you mean {close!r}?)" if close else ""


def check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that is none of those known; a ``kind`` such as ``--format`` is an option of the command line."""
    if name not in known:
        what = f"there is no {kind.removeprefix('--')} {quoted(name)}{did_you_mean(name, known)}"
        next_step = f"such as {kind} {closest(name, known) or next(iter(known))}" if kind.startswith("--") else None
        raise UserError(what, where=kind if next_step else None, allowed=", ".join(known), next_step=next_step)


def closest(word: str, choices: Iterable[str]) -> str:
    """Return the choice that a word is closest to, or an empty string."""
    near = difflib.get_close_matches(word, list(choices), n=3, cutoff=0.5)
    return min(near, key=lambda choice: sorted(choice) != sorted(word), default="")  # swapped letters: mni, min


@contextmanager
def installed(doing: str, extra: str) -> Iterator[None]:
    """Raise a ``UserError`` where a package that something needs is missing: one of this extra."""
    try:
        yield
    except ImportError as error:
        what = f"{doing} needs {error.name or 'packages'}, which is not installed"
        raise UserError(what, next_step=f"pip install 'caef-data[{extra}]'") from error


@contextmanager
def telling_of_full_disk(where: str, next_step: str) -> Iterator[None]:
    """Raise a ``UserError`` where the disk turns out to be full, or the user's share of it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _errno(error) not in FULL:
            raise
        raise UserError("the disk is full", where=where, next_step=next_step) from error


def _errno(error: Exception) -> int | None:
    """Return the system's number of a failure; libraries that write by themselves have it in their text alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if number := _NUMBER.search(text):  # of safetensors, and shutil.copytree
        return int(number[1])
    return errno.ENOSPC if any(words in text for words in _CUT) else None
