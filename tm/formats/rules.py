"""A Turing machine as data: its rules, whatever format they were written in."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ...errors import UserError, quoted

MOST_RULES = 100_000
MOST_SYMBOLS = 255  # with the blank: a cell is a byte
SYMBOL = re.compile(r"[^\s,|\[\]]{1,16}")
STATE = re.compile(r"(?! )[^,|\[\]\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]{1,64}(?<! )")
SYMBOL_RULE = "1 to 16 characters that can be seen, none of , | [ ]"
STATE_RULE = "1 to 64 characters on one line, none of , | [ ], no blank at its ends"
LEFT, STAY, RIGHT = -1, 0, 1


class Rule(NamedTuple):
    """What is done where a machine reads some symbols in a state: one symbol and one move (-1, 0, 1) a tape."""

    write: tuple[str, ...]
    moves: tuple[int, ...]
    next: str


Rules = Mapping[tuple[str, tuple[str, ...]], Rule]  # by state and the symbols read, one a tape


@dataclass(frozen=True, eq=False)
class RuleTable:
    """A machine. Constructing it checks it.

    Args:
        start: the state that it begins in.
        blank: the symbol of cells that nothing was written to.
        rules: what it does; it halts where it has no rule. They are put in order, those of the start first: nothing
            may depend on how a text orders them.
        where: names the file or text in messages.

    Raises:
        UserError: there is no rule, there are too many, or a name or symbol cannot be written in an entry.
    """

    start: str
    blank: str
    rules: Rules
    where: str = "machine"

    def __post_init__(self) -> None:
        if not self.rules:
            raise UserError("this machine has no rules", where=self.where, allowed="one rule at least")
        if len(self.rules) > MOST_RULES:
            what = f"this machine has {len(self.rules):,} rules"
            raise UserError(what, where=self.where, allowed=f"{MOST_RULES:,} rules at most")
        ordered = sorted(self.rules.items(), key=lambda item: (item[0][0] != self.start, item[0]))
        object.__setattr__(self, "rules", dict(ordered))
        for names, rule, allowed, what in (
            (self.states, STATE, STATE_RULE, "a state"),
            (self.symbols, SYMBOL, SYMBOL_RULE, "a symbol"),
        ):
            if wrong := [name for name in names if not rule.fullmatch(name)]:
                raise UserError(f"{quoted(wrong[0])} cannot be {what}", where=self.where, allowed=allowed)
        if len(self.symbols) > MOST_SYMBOLS:
            what = f"this machine has {len(self.symbols):,} symbols"
            raise UserError(what, where=self.where, allowed=f"{MOST_SYMBOLS} symbols at most, the blank included")

    @cached_property
    def num_tapes(self) -> int:
        """Number of tapes, one head each."""
        return len(next(iter(self.rules))[1])

    @cached_property
    def states(self) -> tuple[str, ...]:
        """All states, the start first, those without rules among them."""
        named = [self.start, *(state for state, _ in self.rules), *(rule.next for rule in self.rules.values())]
        return tuple(dict.fromkeys(named))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """All symbols, the blank first, the others sorted."""
        found = {symbol for (_, read), rule in self.rules.items() for symbol in (*read, *rule.write)}
        return self.blank, *sorted(found - {self.blank})

    @cached_property
    def canonical(self) -> dict[str, Any]:
        """The machine as JSON has it: the same for every way of writing the same rules."""
        rules = [
            [state, list(read), list(rule.write), list(rule.moves), rule.next]
            for (state, read), rule in sorted(self.rules.items())
        ]
        return {"start": self.start, "blank": self.blank, "rules": rules}

    @cached_property
    def identity(self) -> str:
        """16 hex digits of the canonical form."""
        text = json.dumps(self.canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @classmethod
    def of(cls, canonical: Mapping[str, Any], where: str = "machine") -> RuleTable:
        """Return the machine of a canonical form.

        Raises:
            UserError: it is none.
        """
        try:
            rules: dict[tuple[str, tuple[str, ...]], Rule] = {}
            for state, read, write, moves, then in canonical["rules"]:
                rule = Rule(tuple(write), tuple(moves), then)
                if len({len(read), len(write), len(moves)}) != 1 or not {*moves} <= {LEFT, STAY, RIGHT}:
                    raise ValueError("a rule has a symbol read, one written and a move -1, 0 or 1 for each tape")
                rules[state, tuple(read)] = rule
            return cls(canonical["start"], canonical["blank"], rules, where)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"this is no machine: {error}", where=where) from error


class TableWriter:
    """Collects the rules of a text line by line; a rule that is given twice is refused.

    Args:
        where: names the text in messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.rules: dict[tuple[str, tuple[str, ...]], Rule] = {}
        self._lines: dict[tuple[str, tuple[str, ...]], int] = {}

    def error(self, what: str, line: int | None, allowed: str | None = None) -> UserError:
        """Return the error of a line, numbered from 1; None for the whole text."""
        return UserError(what, where=self.where + (f", line {line}" if line else ""), allowed=allowed)

    def add(self, line: int | None, state: str, read: tuple[str, ...], rule: Rule) -> None:
        """Take a rule.

        Raises:
            UserError: there is one for this state and these symbols.
        """
        if (state, read) in self.rules:
            first = self._lines[state, read]
            earlier = f", the first one in line {first}" if first else ""
            raise self.error(f"the state {quoted(state)} has two rules for {quoted(' '.join(read))}{earlier}", line)
        if len(self.rules) >= MOST_RULES:
            raise self.error(f"this machine has more than {MOST_RULES:,} rules", None, f"{MOST_RULES:,} at most")
        self.rules[state, read] = rule
        self._lines[state, read] = line or 0

    def table(self, start: str, blank: str) -> RuleTable:
        """Return the machine of all rules."""
        return RuleTable(start, blank, self.rules, self.where)
