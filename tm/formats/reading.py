"""What the readers of all formats share: checked names, and the blank as an entry writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...errors import UserError, did_you_mean, quoted
from .rules import STATE, STATE_RULE, SYMBOL, SYMBOL_RULE, Rule, RuleTable, TableWriter


class Source(NamedTuple):
    """A machine as its text has it; ``example`` holds the symbols of the input word that the text states."""

    writer: TableWriter
    start: str
    blank: str
    example: Sequence[str] | None = None

    def machine(self) -> tuple[RuleTable, str | None]:
        """Return the machine and its example word; a blank that is white space is written ``_`` in both."""
        blank, word = self.blank, None
        if blank.isspace():  # more underscores where the machine has that symbol for something else
            taken, blank = (
                {symbol for (_, read), rule in self.writer.rules.items() for symbol in read + rule.write},
                "_",
            )
            while blank in taken:
                blank += "_"

        def written(symbols: Iterable[str]) -> tuple[str, ...]:
            return tuple(blank if symbol == self.blank else symbol for symbol in symbols)

        if self.example is not None:
            example = written(self.example)
            word = ("" if all(len(symbol) == 1 for symbol in example) else " ").join(example)
        rules = {
            (state, written(read)): Rule(written(rule.write), rule.moves, rule.next)
            for (state, read), rule in self.writer.rules.items()
        }
        return RuleTable(self.start, blank, rules, self.writer.where), word


def checked_symbol(writer: TableWriter, text: str, blank: str, line: int | None) -> str:
    """Return a symbol, or raise a ``UserError``: an entry cannot hold it. The blank may be white space."""
    if not (text == blank and blank.isspace()) and not SYMBOL.fullmatch(text):
        raise writer.error(f"{quoted(text)} cannot be a symbol", line, SYMBOL_RULE)
    return text


def checked_state(writer: TableWriter, text: str, line: int | None) -> str:
    """Return the name of a state, or raise a ``UserError``: an entry cannot hold it."""
    if not STATE.fullmatch(text):
        raise writer.error(f"{quoted(text)} cannot be a state", line, STATE_RULE)
    return text


def unknown_state(writer: TableWriter, name: str, states: Iterable[str], line: int | None) -> UserError:
    """Return the error of a state that is named but not there."""
    what = f"there is no state {quoted(name)}{did_you_mean(name[:60], states)}"
    return writer.error(what, line, "a state of this machine")
