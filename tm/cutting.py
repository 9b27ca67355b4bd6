"""Texts of entries, cut by their shape and written again, as fast as Python does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

CELL = r"\|[0-9]"
TAPE = rf"(?:{4 * CELL})*+(?:{CELL})*+"  # four at a time: matching is what takes the time
ANY_DIGIT = bytes.maketrans(b"123456789", b"000000000")
Cut = Callable[[str], tuple[str, ...]]


def shape(prompt: str) -> bytes:
    """Return what texts that differ in digits alone have in common.

    They are cut at the same places. Matching a text takes most of the time: how a shape is cut is kept.
    """
    return prompt.encode("utf-8", "replace").translate(ANY_DIGIT)


def cutter(prompt: str, cuts: Sequence[slice], mark: str = "", ignored: range = range(0)) -> tuple[Cut, list[str]]:
    """Return what cuts texts of a shape, and the digits outside the cuts, of states and heads, which it cuts out too.

    Args:
        prompt: a text of the shape.
        cuts: where it is cut.
        mark: a cut text whose digits must stay as they are.
        ignored: where digits may be any.
    """
    free = {*ignored} | {at for one in cuts if prompt[one] != mark for at in range(one.start, one.stop)}
    fixed = [at for at, sign in enumerate(prompt) if "0" <= sign <= "9" and at not in free]
    return itemgetter(*cuts, *fixed), [prompt[at] for at in fixed]


def formatter(text: str, names: Iterable[str]) -> Callable[..., str]:
    """Return what fills the ``{name}`` fields of a text: an f-string, three times as fast as any other way."""
    made: Callable[..., str] = eval(f"lambda {', '.join(names)}: f{text!r}")  # noqa: S307
    return made
