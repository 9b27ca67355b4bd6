"""Any Turing machine as a task: its entries and runs, one step at a time, from its table of rules.

Plain Python: ``show``, ``verify`` and the oracle walk runs with it. ``turing_engine`` runs whole columns of words; it
shares the table with this file, and nothing else. docs/machines.md describes the text.
"""

import re
import shlex
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError, did_you_mean, quoted
from .columns import I64, Number, Operands
from .formats.families import machine_side
from .formats.rules import LEFT, RIGHT, STAY, Rule, RuleTable
from .interpreter import wrong_entry
from .machine import HALT, NO_SLIPS, Batch, Dialect, Machine, Transition
from .registry import register
from .regular import shown
from .render import Field
from .turing_engine import MOST_STEPS, CellTexts, TuringBatch, coded, run_lengths
from .words import Language, is_spaced, read_words, split_word

NAME = re.compile("[a-z][a-z0-9_]{0,63}")
CELL = r"(?:\|[^|\[\] \n]+)"
ROOM = 1 << 14  # steps of a single run between looks at its tape
SHOWN_RULES = 100  # a description that the model reads lists no more
MOVES = {"LEFT": LEFT, "RIGHT": RIGHT}
WORDS = {move: word for word, move in MOVES.items()}
Opt = str | None


@dataclass
class Tapes:
    """What a machine knows between two steps: its state, and every cell that its tapes have touched so far."""

    state: str
    cells: list[list[str]]
    heads: list[int]
    origin: int = 0  # where the first tape's head began

    @property
    def read(self) -> tuple[str, ...]:
        return tuple(cells[head] for cells, head in zip(self.cells, self.heads, strict=True))

    def execute(self, rule: Rule, blank: str) -> None:
        for tape, (symbol, move) in enumerate(zip(rule.write, rule.moves, strict=True)):
            cells = self.cells[tape]
            cells[self.heads[tape]] = symbol
            self.heads[tape] += move
            if self.heads[tape] < 0:
                cells.insert(0, blank)
                self.heads[tape] = 0
                self.origin += tape == 0
            elif self.heads[tape] == len(cells):
                cells.append(blank)
        self.state = rule.next


class TuringMachine(Machine):
    """A Turing machine that a declaration brings: the task ``name``, its rules, and a word to show it with.

    ``words`` is the regular expression of its input words, None for all words over its symbols; ``output`` its answer,
    ``tape``, ``tape 2`` ... or ``state``, None where it has none; ``side`` the split that it belongs to, of a family
    whose machines are split, None where its words are. Raises UserError where a value is refused.
    """

    unary = True
    walks = True
    numbers = False
    halts = False
    checked_by = "each run is walked step by step from the rules; the engine that made the rows has no part in it"

    def __init__(
        self, name: str, table: RuleTable, words: Opt = None, output: Opt = None, example: Opt = None, side: Opt = None
    ) -> None:
        if not NAME.fullmatch(name):
            allowed = "a lower-case letter, then up to 63 lower-case letters, digits and _"
            raise UserError(f"{quoted(name)} cannot be the name of a machine", where=table.where, allowed=allowed)
        outputs = ["tape", "state", *(f"tape {tape + 1}" for tape in range(table.num_tapes))]
        if output not in (None, *outputs):
            what = f"output is {quoted(output)}{did_you_mean(str(output), outputs)}"
            raise UserError(what, where=table.where, allowed=", ".join(outputs))
        self.name, self.table, self.output, self.side = name, table, output, side  # type: ignore[misc]
        self.sign = None if output is None else ""  # type: ignore[misc]
        self.example = example or "", ""  # type: ignore[misc]
        self.symbols = table.symbols[1:]  # of its words
        self.law = Language(self.symbols, words, f"{table.where}, input")  # type: ignore[misc]
        if self.length(self.example[0]) is None:
            what, allowed = f"example is {quoted(example)}", f"a word of {shown(self.symbols)}"
            raise UserError(what, where=table.where, allowed=allowed)
        self.heads = [f"[HEAD{tape + 1}]" for tape in range(table.num_tapes)] if table.num_tapes > 1 else ["[HEAD]"]
        self.between = " " if is_spaced(table.symbols) else ""  # the symbols of an answer, which may hold blanks
        self.output_tape = int((output or "")[5:] or 1) - 1
        self.own = {"name": name, "words": words, "output": output, "side": side, "example": example}

    @property
    def source(self) -> str:
        return self.table.where

    @property
    def split_key(self) -> str:
        return self.table.identity

    def spec(self) -> dict[str, Any]:
        """Return the machine as JSON has it; ``define_spec`` reads it back."""
        return {**self.own, "table": self.table.canonical}

    def __reduce__(self) -> tuple[Any, ...]:
        return define_spec, (self.spec(), self.table.where)

    def identity(self) -> dict[str, object]:
        """Return what else than settings decides on the rows: rules, input and output, and the version of the text."""
        return {
            "turing": 1,
            "machine": self.table.identity,
            **{key: self.own[key] for key in ("words", "output", "side")},
        }

    def missing_views(self) -> dict[str, str]:
        missing = {"aligner": "a Turing machine is given its word as it is", "slips": NO_SLIPS}
        return missing if self.output is not None else {**missing, "raw": "the machine declares no output"}

    def column(self, texts: Sequence[str]) -> Number:
        return read_words(texts, self.symbols)

    def written(self, number: Number, rows: I64) -> Field:
        words, between = number.take(rows), " " if is_spaced(self.symbols) else ""
        cells = CellTexts(self.table.symbols, np.ascontiguousarray(words.planes.T).reshape(-1), between)
        begin = np.arange(len(words)) * words.width
        return cells.slice(begin, begin + words.length, len(between))

    def length(self, text: str | None) -> int | None:
        if text is None:  # in a row that somebody changed
            return None
        word = split_word(text, self.symbols)
        return len(word) if {*word} <= {*self.symbols} else None

    def operand(self, name: str, text: object) -> str:
        if not isinstance(text, str):
            raise UserError(f"the word must be a text, not {quoted(text)}", where=self.name)
        self.column([text])
        return text

    def command(self, rule: Rule | None, read: tuple[str, ...]) -> str:
        """Return the command line of a rule where these symbols are read."""
        if rule is None:
            return HALT
        actions = []
        for head, symbol, write, move in zip(self.heads, read, rule.write, rule.moves, strict=True):
            actions += [f"{head} {write}"] * (write != symbol) + [f"{head} {WORDS.get(move)}"] * (move != 0)
        return f"CMD {', '.join([*actions, rule.next])}"

    def entry(self, now: Tapes) -> str:
        """Return the two lines of what a machine knows."""
        tapes = []
        for head, cells, place in zip(self.heads, now.cells, now.heads, strict=True):
            shown = [f"|{symbol}" for symbol in cells]
            tapes.append("".join([*shown[:place], head, *shown[place:]]))
        command = self.command(self.table.rules.get((now.state, now.read)), now.read)
        return f"{self.title}, {now.state}, {' '.join(tapes)}\n{command}\n"

    def start(self, word: str) -> Tapes:
        """Return what the machine knows before its first step."""
        blank, num_tapes = self.table.blank, self.table.num_tapes
        cells = [split_word(word, self.symbols) or [blank], *([blank] for _ in range(num_tapes - 1))]
        return Tapes(self.table.start, cells, [0] * num_tapes)

    def walk(self, word: str) -> Iterator[Tapes]:
        """Yield what the machine knows before its first step and after each one: one object, which changes."""
        now = self.start(word)
        yield now
        while rule := self.table.rules.get((now.state, now.read)):
            now.execute(rule, self.table.blank)
            yield now

    def transitions(self, a: str, b: object = "", dialect: Dialect = "consistent") -> Iterator[Transition]:  # type: ignore[override]
        entries = ((self.entry(now), now.state) for now in self.walk(a))
        for (before, state), (after, then) in pairwise(entries):
            yield Transition(before, after, state, then)

    def end(self, word: str, most: int = MOST_STEPS) -> tuple[Tapes, int]:
        """Return what it knows when it has halted, and its number of steps; raises UserError where these are more."""
        [(steps, now)] = deque(enumerate(islice(self.walk(word), most + 1)), maxlen=1)
        if (now.state, now.read) in self.table.rules:
            what = f"{self.name} does not halt within {most:,} steps"
            raise UserError(what, where=f"the word {quoted(word)}", next_step="raise --max-steps, if it halts at all")
        return now, steps

    def outcome(self, a: str, most: int) -> tuple[int, str]:
        """Return the number of steps of a run, and its output; raises UserError beyond ``most`` steps."""
        now, steps = self.end(a, most)
        if self.output == "state":
            return steps, now.state
        cells = now.cells[self.output_tape]
        written = [at for at, symbol in enumerate(cells) if symbol != self.table.blank]
        return steps, self.between.join(cells[written[0] : written[-1] + 1]) if written else ""

    def num_steps(self, a: str, b: object = "") -> int:  # type: ignore[override]
        return self.end(a)[1]

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        """Return a bound on the steps of words of a length that all take one; 0 where none is known.

        It is known of a machine of one tape that sweeps: no state comes back but by rules that lead to itself, which
        all move one way, none on a blank. So they stop behind the tape's end, and a state adds two cells at most.
        """
        table, order, ways = self.table, TopologicalSorter[str](), dict[str, int]()
        sweeps = table.num_tapes == 1 and all((table.start, (symbol,)) in table.rules for symbol in table.symbols)
        for (state, read), rule in table.rules.items():
            if rule.next != state:
                order.add(state, rule.next)
            else:
                way = STAY if read == (table.blank,) else rule.moves[0]
                sweeps &= way == ways.setdefault(state, way) != STAY
        try:
            order.prepare()
        except CycleError:
            sweeps = False
        return len(table.states) * (max(len_a, 1) + 2 * len(table.states) + 1) if sweeps else 0

    def transition(self, a: str, b: object, t: int, dialect: Dialect) -> Transition:  # type: ignore[override]
        return next(islice(self.transitions(a), t, None))

    def initial(self, a: str, b: object = "") -> str:  # type: ignore[override]
        return self.entry(self.start(a))

    def halted(self, a: str, b: object = "") -> str:  # type: ignore[override]
        return self.entry(self.end(a)[0])

    def answer(self, a: str, b: object = "") -> str:  # type: ignore[override]
        """Return the output: the state that it halts in, or what stands between the outer blanks of a tape."""
        return self.outcome(a, MOST_STEPS)[1]

    def run_lengths(self, operands: Operands, most: int) -> I64:
        return run_lengths(coded(self.table), operands.a, most)

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return TuringBatch(self, operands, dialect)

    def successor(self, prompt: str) -> str:
        """Return the entry that follows one, of a run or not; raises UserError where none does."""
        now, command = self.parse(prompt)
        if command == HALT:
            raise self.wrong_entry(command, "the machine has halted, nothing follows")
        now.execute(self._rule(command, now.read), self.table.blank)
        return self.entry(now)

    def parse(self, entry: str) -> tuple[Tapes, str]:
        """Return what an entry shows, and its command line; raises UserError where the text is none."""
        found = self._entry.fullmatch(entry)
        state, *tapes, command = found.groups() if found else ("", "")
        parts = [tape.split("|")[1:] for tape in tapes]
        if state not in self.table.states or any({*part} - {*self.table.symbols} for part in parts):
            tape = f"its tapes with {', '.join(self.heads)} before a symbol"
            why = f"an entry has two lines, {self.title}, a state of {self.name} and {tape}, then a command"
            raise self.wrong_entry(entry, why)
        cells = [left + right for left, right in zip(parts[::2], parts[1::2], strict=True)]
        return Tapes(state, cells, [len(left) for left in parts[::2]]), command

    def wrong_entry(self, text: str, why: str) -> UserError:
        """Return the error of an entry of this machine, or a part of one, that nothing follows."""
        show = f"caef-data show --task {self.name} {shlex.quote(self.example[0])} --in FILE"
        return wrong_entry(text, why, f"{show} prints entries; FILE: the declaration or dataset of {self.name}")

    @cached_property
    def _entry(self) -> re.Pattern[str]:
        tapes = " ".join(rf"({CELL}*){re.escape(head)}({CELL}+)" for head in self.heads)
        return re.compile(rf"{self.title}, ([^,]+), {tapes}\n(.*)\n")

    def _rule(self, command: str, read: tuple[str, ...]) -> Rule:
        """Return what a command line says where these symbols are read."""
        *actions, then = command.removeprefix("CMD ").split(", ")
        if not command.startswith("CMD ") or then not in self.table.states:
            raise self.wrong_entry(command, "it must begin with CMD and end with a state of the machine")
        write, moves = dict(zip(self.heads, read, strict=True)), dict.fromkeys(self.heads, STAY)
        for action in actions:
            head, _, value = action.partition(" ")
            if moves.get(head) != STAY or value not in (*MOVES, *self.table.symbols):
                raise self.wrong_entry(command, f"{quoted(action)} is no action of {self.name} here")
            if value in MOVES:
                moves[head] = MOVES[value]
            else:
                write[head] = value
        return Rule(tuple(write.values()), tuple(moves.values()), then)

    @property
    def instruction(self) -> str:  # type: ignore[override]
        """The description that the first training stage puts before a prompt: the text's rules, and the machine's."""
        table, many = self.table, "s" * (self.table.num_tapes > 1)
        heads = ", ".join(self.heads) + (", one a tape, stand" if many else " stands")
        rules = [
            f"{state}, {' '.join(read)}: {self.command(rule, read).removeprefix('CMD ')}"
            for (state, read), rule in table.rules.items()
        ]
        listed = "\n".join(rules) if len(rules) <= SHOWN_RULES else f"{len(rules):,} rules, not listed here."
        return (
            f"{self.title} is a Turing machine. You are its control: given the current entry of a run, you write the"
            " next one. An entry is a state line and a command line.\n\n"
            f"State line: {self.title}, the state, the tape{many} with | before each symbol."
            f" {heads} before the symbol that is read. The blank is {table.blank}. A cell that a head reaches"
            " for the first time is added with a blank.\n\n"
            "Command line: CMD and actions, done from left to right; a head and a symbol write it, a head and LEFT or"
            f' RIGHT move it; the last one names the state to go to. Where there is no rule: "{HALT}"\n\n'
            f"Rules (state, symbol{many} read: actions):\n{listed}\n\n"
            "Job: apply the command to the state line, then give the command that the new state calls for.\n\n"
        )

    @property
    def raw_instruction(self) -> str:  # type: ignore[override]
        told = "the state that it halts in" if self.output == "state" else "what its tape holds when it halts"
        return f"{self.instruction.partition('Job: ')[0]}Job: given a word and =, write {told}.\n\n"


def define_spec(spec: Mapping[str, Any], where: str = "machine") -> TuringMachine:
    """Register the machine of a specification, and return it; raises UserError, LookupError ... where it is none."""
    table, side = RuleTable.of(spec["table"], where), spec["side"]
    if side not in (None, machine_side(table)):
        raise UserError(f"this machine belongs to {machine_side(table)}, not to {quoted(side)}", where=where)
    made = TuringMachine(spec["name"], table, spec["words"], spec["output"], spec["example"], side)
    register(made)
    return made


class RunEnd(NamedTuple):
    """Where a run stands, after so many steps; ``marks`` are cells that hold no blank, on all tapes."""

    steps: int
    halted: bool
    state: str
    marks: int


def run_to_end(table: RuleTable, now: Tapes, most: int) -> RunEnd:
    """Run a machine on from what it knows, for at most so many steps; ``now`` is changed."""
    steps = _one_tape(table, now, most) if table.num_tapes == 1 else 0
    while table.num_tapes > 1 and steps < most and (rule := table.rules.get((now.state, now.read))):
        now.execute(rule, table.blank)
        steps += 1
    halted = (now.state, now.read) not in table.rules
    marks = sum(symbol != table.blank for cells in now.cells for symbol in cells)
    return RunEnd(steps, halted, now.state, marks)


def _one_tape(table: RuleTable, now: Tapes, most: int) -> int:
    """Run on a tape of bytes; before so many steps it gets as many cells on either side of the head."""
    symbols = {symbol: code for code, symbol in enumerate(table.symbols)}
    states = {state: number * len(symbols) for number, state in enumerate(table.states)}
    rules: list[tuple[int, int, int]] = [None] * (len(symbols) * len(states))  # type: ignore[list-item]
    for (state, (read,)), rule in table.rules.items():
        rules[states[state] + symbols[read]] = symbols[rule.write[0]], rule.moves[0], states[rule.next]
    tape, head, control, taken = bytearray(map(symbols.__getitem__, now.cells[0])), now.heads[0], states[now.state], 0
    try:
        while taken < most:
            left = max(ROOM - head, 0)
            tape[:0], head, now.origin = bytes(left), head + left, now.origin + left
            tape += bytes(max(head + ROOM + 1 - len(tape), 0))
            for taken in range(taken + 1, min(taken + ROOM, most) + 1):  # noqa: B007, B020  it is read after the loop
                write, move, control = rules[control + tape[head]]
                tape[head] = write
                head += move
    except TypeError:  # no rule for this step
        taken -= 1
    now.state, now.heads = table.states[control // len(symbols)], [head]
    now.cells = [[table.symbols[code] for code in tape]]
    return taken
