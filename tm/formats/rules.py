"""A Turing machine as data: its rules, whatever format they were written in."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Literal, NamedTuple

import msgspec

from ...errors import UserError, did_you_mean, quoted

MOST_RULES = 100_000
MOST_SYMBOLS = 255  # with the blank: a cell is a byte
NAMES = {  # what an entry can hold
    "symbol": (  # a command names moves as it names symbols
        r"(?!(?:LEFT|RIGHT)\Z)[^\s,|\[\]\x00-\x1f\x7f\ud800-\udfff]{1,16}",
        "1 to 16 characters that can be seen, none of , | [ ]; not LEFT or RIGHT",
    ),
    "state": (
        r"(?! )[^,|\[\]\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]{1,64}(?<! )",
        "1 to 64 characters on one line, none of , | [ ], no blank at its ends",
    ),
}
LEFT, STAY, RIGHT = -1, 0, 1

Symbols = tuple[str, ...]  # one a tape


class Rule(NamedTuple):
    """What is done where a machine reads some symbols in a state: one symbol and one move (-1, 0, 1) a tape."""

    write: Symbols
    moves: tuple[int, ...]
    next: str


Key = tuple[str, Symbols]  # a state, and the symbols read in it
JsonRules = list[tuple[str, Symbols, Symbols, tuple[Literal[-1, 0, 1], ...], str]]  # read, write, moves, next


@dataclass(frozen=True, eq=False)
class RuleTable:
    """A machine; it halts where it has no rule. Raises UserError where it is too large; names are checked before.

    Its rules are put in order, those of the start first: nothing may depend on how a text orders them. ``where`` names
    the file or text in messages.
    """

    start: str
    blank: str
    rules: Mapping[Key, Rule]
    where: str = "machine"

    def __post_init__(self) -> None:
        ordered = sorted(self.rules.items(), key=lambda item: (item[0][0] != self.start, item[0]))
        object.__setattr__(self, "rules", dict(ordered))
        for what, number, most in (
            ("rules", len(ordered), MOST_RULES),
            ("symbols, with the blank,", len(self.symbols), MOST_SYMBOLS),
            ("numbers of tapes in its rules", len({len(read) for _, read in self.rules}), 1),
        ):
            if not 1 <= number <= most:
                raise UserError(f"this machine has {number:,} {what}", where=self.where, allowed=f"1 to {most:,}")

    @cached_property
    def num_tapes(self) -> int:
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
        rules = [[state, read, *rule] for (state, read), rule in sorted(self.rules.items())]
        return {"start": self.start, "blank": self.blank, "rules": rules}

    @cached_property
    def identity(self) -> str:
        """16 hex digits of the canonical form."""
        text = json.dumps(self.canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @classmethod
    def of(cls, canonical: Mapping[str, Any], where: str = "machine") -> "RuleTable":
        """Return the machine of a canonical form; raises UserError, LookupError or TypeError where it is none."""
        start, blank, writer = canonical["start"], canonical["blank"], TableWriter(where)
        writer.check("state", start, None)
        writer.check("symbol", blank, None)
        try:
            rules = msgspec.convert(canonical["rules"], JsonRules)
        except msgspec.ValidationError as error:
            raise writer.error(f"these are no rules: {error}", None) from error
        for state, read, write, moves, then in rules:
            writer.add(None, state, read, Rule(write, moves, then))
        return cls(start, blank, writer.rules, where)


class TableWriter:
    """Collects what a reader finds in a text; lines are numbered from 1, None stands for the whole text.

    ``blank`` may be white space, which no other symbol may; ``example`` is the input word that the text states.
    """

    def __init__(self, where: str) -> None:
        self.where, self.blank, self.rules, self.lines = where, "", dict[Key, Rule](), dict[Key, int | None]()
        self.example: str | None = None

    def error(self, what: str, line: int | None, allowed: str | None = None) -> UserError:
        return UserError(what, where=self.where + (f", line {line}" if line else ""), allowed=allowed)

    def require(self, holds: object, what: str, line: int | None, allowed: str | None = None) -> None:
        """Raise UserError, which says ``what`` is wrong, unless something holds."""
        if not holds:
            raise self.error(what, line, allowed)

    def check(self, kind: str, name: str, line: int | None) -> None:
        """Refuse a ``state`` or ``symbol`` that an entry cannot hold; raises UserError."""
        fits = re.fullmatch(NAMES[kind][0], name) or (kind == "symbol" and name == self.blank and name.isspace())
        self.require(fits, f"{quoted(name)} cannot be a {kind}", line, NAMES[kind][1])

    def known(self, state: str, states: Iterable[str], line: int | None) -> str:
        """Return a state that is one of some; raises UserError where it is none of them."""
        if state not in states:
            what = f"there is no state {quoted(state)}{did_you_mean(state[:60], states)}"
            raise self.error(what, line, "a state of this machine")
        return state

    def add(self, line: int | None, state: str, read: Symbols, rule: Rule) -> None:
        """Take a rule, or raise UserError."""
        for kind, names in (("state", (state, rule.next)), ("symbol", read + rule.write)):
            for name in names:
                self.check(kind, name, line)
        self.require(len(read) == len(rule.write) == len(rule.moves), "a rule of different numbers of tapes", line)
        first = self.lines.setdefault((state, read), line)
        what = f"the state {quoted(state)} has two rules for {quoted(' '.join(read))}"
        self.require((state, read) not in self.rules, what + f", the first one in line {first}" * bool(first), line)
        self.rules[state, read] = rule

    def table(self, start: str) -> tuple[RuleTable, str | None]:
        """Return the machine, its blank written ``_`` where it is white space, and its example if that is a word."""
        taken = {symbol for (_, read), rule in self.rules.items() for symbol in read + rule.write}
        free = next(name for length in count(1) if (name := "_" * length) not in taken)

        def written(symbols: Iterable[str]) -> Symbols:
            return tuple(free if symbol == self.blank and symbol.isspace() else symbol for symbol in symbols)

        rules = {(key, written(read)): Rule(written(rule[0]), *rule[1:]) for (key, read), rule in self.rules.items()}
        found = RuleTable(start, written([self.blank])[0], rules, self.where)
        return found, self.example if {*(self.example or "")} <= {*found.symbols[1:]} else None
