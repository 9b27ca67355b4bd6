"""The trace of one expression: tapes, heads and commands in words for people, JSON for programs."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from ..errors import UserError, quoted, shell_quoted
from ..tm import Dialect, Machine, align_in, align_out, known_dialect, machine, operands, tasks, transitions
from ..tm.basic import BasicMachine
from ..tm.composer import Composer
from ..tm.expression import EXAMPLE, OPERAND_RULE, parse_expression, parse_operand, signs
from ..tm.interpreter import Configuration, execute, tape_text, units_first
from ..tm.machine import HALT
from ..tm.turing import TuringMachine
from .settings import check_task
from .show_tape import print_words
from .spelling import Spelling

MAX_ENTRIES = 400  # longer traces are cut in the middle when they are shown to people
EDGE = 8  # entries shown at each end of a cut trace: two rounds of the loop of mul and div and a bit
MIN_WIDTH = 60  # narrower terminals get lines of this width

_STYLES = {"state": "bold cyan", "command": "green", "call": "magenta", "answer": "bold green"}
Problem = tuple[str, str, str | None]  # task, a, b


def _with_task(words: Sequence[str], task: str) -> Problem:
    """Return the expression of a task and its operands, ``["99", "7"]``; b is None where it has one."""
    task = check_task(task, Spelling(options={"task": task}, verb="show"))
    kind = machine(task)
    names = "a" if kind.unary else "ab"
    if len(words) != len(names):
        raise UserError(
            f"{task} takes {len(names)} operand{'s' * (len(names) > 1)}, found {len(words)}",
            allowed=OPERAND_RULE,
            next_step=f"caef-data show --task {task} {' '.join(kind.example[: len(names)])}",
        )
    a, *rest = (parse_operand(word, name) for word, name in zip(words, names, strict=True))
    return task, a, rest[0] if rest else None


def problems_of(words: Sequence[str], task: str | None, lines: Iterable[str]) -> list[Problem]:
    """Return the expressions that words name, or the operands of ``task``; ``-`` stands for lines that are not empty.

    Raises:
        UserError: a word is no expression, or there is none.
    """
    for word in words:
        if word.startswith("-") and word != "-" and not word[1].isdecimal():
            raise UserError(f"show has no option {quoted(word)}", next_step="caef-data show --help")
    if task is None and len(words) > 1 and not {*words}.isdisjoint({*signs(), "="}):
        again = f"caef-data show {shell_quoted(''.join(words)[:100])}"
        raise UserError("an expression has no blanks in it", where=quoted(" ".join(words)), next_step=again)
    given = words if list(words) != ["-"] else [line.strip() for line in lines if line.strip()]
    problems: list[Problem]
    if task is None:
        problems = [parse_expression(text) for text in given]
    elif task in tasks() and isinstance(kind := machine(task), TuringMachine):
        problems = [(task, kind.operand("a", word), None) for word in given]
    elif given is words:
        problems = [_with_task(words, task)] if words else []
    else:
        problems = [_with_task(line.split(), task) for line in given]
    if not problems:
        allowed = "expressions, as words or as lines of standard input"
        raise UserError("there is no expression to show", allowed=allowed, next_step=EXAMPLE)
    return problems


def show(  # noqa: PLR0913
    problems: Sequence[Problem], console: Console, *, dialect: str, nested: bool, max_steps: int, as_json: bool
) -> None:
    """Print the traces of expressions: for people, or one line of JSON each.

    Raises:
        UserError: a task does not take its operands, or a trace is too long for JSON.
    """
    kind = machine(problems[0][0])  # words are of one task, that was named
    if isinstance(kind, TuringMachine):
        print_words(kind, [word for _, word, _ in problems], console, max_steps, as_json=as_json)
        return
    for problem in problems:
        Run.of(*problem, dialect)
    for index, problem in enumerate(problems):
        if as_json:
            print(json.dumps(show_json(*problem, dialect, max_steps)))
        else:
            if index:
                console.print()
            print_trace(console, *problem, dialect=dialect, nested=nested)


def show_json(
    task: str, a: str, b: str | None = None, dialect: str = "consistent", max_steps: int = 10_000
) -> dict[str, Any]:
    """Return task, a, b, every step as [prompt, completion], and the aligner's two rows (null for helpers).

    Raises:
        UserError: these operands are not the task's, or there are more than ``max_steps`` transitions.
    """
    run = Run.of(task, a, b, dialect)
    if run.num_steps > max_steps:
        raise UserError(
            f"the trace has {brief(f'{run.num_steps:,}')} transitions, which is more than {max_steps:,}",
            where=f"task {task}, operands {brief(a)}, {brief(b or '-')}",
            allowed="--json gives whole traces of up to --max-steps transitions",
            next_step="leave --json out to see the first and the last entries, or raise --max-steps",
        )
    steps = [[step.prompt, step.completion] for step in transitions(task, a, b, dialect=dialect)]
    question = f"{a}{run.machine.sign}{b}=" if run.machine.sign is not None else None
    aligner_in = [question, align_in(question)] if question else None
    aligner_out = list(align_out(task, a, b or "")) if question else None
    return {"task": task, "a": a, "b": b, "steps": steps, "aligner_in": aligner_in, "aligner_out": aligner_out}


@dataclass(frozen=True, slots=True)
class Part:
    """A tape or a register."""

    label: str  # its name in words, ``tape 1``
    value: str  # its digits, units first, or True / False; empty where nothing is written
    head: int | None = None  # how many digits stand to its left; -1 in front of the operand, None for a register


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a machine."""

    state: str
    parts: list[Part] | str  # tapes and registers; the text itself of a machine that has none
    command: str  # in words; empty where a machine is called
    called: "Run | None" = None
    then: str = ""  # in words, where the machine that calls goes on
    quoted: str = ""  # the entry with which the called machine halted, as this entry's prompt has it


@dataclass(frozen=True, slots=True)
class Run:
    """One machine at work on one expression that it takes (b is 0 where it has one operand)."""

    machine: Machine
    a: int
    b: int
    dialect: Dialect

    @classmethod
    def of(cls, task: str, a: str, b: str | None, dialect: str) -> "Run":
        """Return the run of checked decimal texts; raises UserError where the task does not take them."""
        return cls(*operands(task, a, b), known_dialect(dialect))

    @property
    def num_steps(self) -> int:
        return self.machine.num_steps(self.a, self.b)

    def entries(self, start: int, stop: int, total: int) -> Iterator[Entry]:
        """Yield entries start..stop-1 of a run of ``total`` transitions."""
        machine, a, b = self.machine, self.a, self.b
        if isinstance(machine, BasicMachine):
            now, _ = machine.walk(a, b, start)
            for index in range(start, stop):
                command = machine.line(now)
                yield Entry(now.state, _basic_parts(machine, now), command_words(command))
                now = execute(now, command) if index < total else now
            return
        for index in range(start, stop):
            if isinstance(machine, Composer):
                yield self._composed(machine, index, total)
            else:
                step = machine.transition(a, b, min(index, total - 1), self.dialect)
                state, text = (step.next_state, step.completion) if index == total else (step.state, step.prompt)
                yield Entry(state, text, "")

    def _composed(self, composer: Composer, index: int, total: int) -> Entry:
        a, b, calls = self.a, self.b, composer.calls
        turn, place = divmod(index - 1, len(calls))
        call = calls[place] if 0 < index < total else None
        state = "q0" if index == 0 else calls[place].state if call else "qH"
        turn = turn + 1 if call else composer.turns(a, b)
        values: Mapping[str, int] = {"a": a, "b": b, **(composer.registers(a, b, turn, state) if index else {})}
        names = composer.template(calls[0].state if index == 0 else state).names  # at first registers are empty
        digits = {name: units_first(values[name]) if name in values else "" for name in names}
        parts = [Part(_label(name, state), value) for name, value in digits.items()]
        if call is None:
            begin = composer.begin.format(a=tape_text(units_first(a)), b=tape_text(units_first(b)))
            return Entry(state, parts, command_words(begin if index == 0 else HALT))
        x, y, *_ = *composer.operands(a, b, turn, call), 0
        quoted = composer.transition(a, b, index, self.dialect).prompt.split("\n", 2)[2]
        return Entry(state, parts, "", Run(machine(call.task), x, y, self.dialect), _goto(call.then), quoted)


def _basic_parts(machine: BasicMachine, now: Configuration) -> list[Part]:
    """Return the tapes and registers of a basic machine in a configuration; at first registers are empty."""
    heads = enumerate(zip(now.tapes, now.heads, strict=True), 1)
    parts = [Part("tape" if len(now.tapes) == 1 else f"tape {n}", tape, head) for n, (tape, head) in heads]
    states = [state for state in machine.states if state != "qH"] if now.state == "q0" else [now.state]
    names = dict.fromkeys(name for state in states for name in machine.template(state).names)
    values = {"carry": now.carry, "out": now.output or machine.empty.get(now.state, "").strip("|"), "flag": now.flag}
    return parts + [Part(_label(name, now.state), values[name]) for name in names if name in values]


def _label(name: str, state: str) -> str:
    result = "result" if state == "qH" else "output"
    return {"a": "tape 1", "b": "tape 2", "out": result, "flag": result}.get(name, name)


_ACTION = re.compile(r"\[([A-Z]+)(\d*)\] ?(.*)")


def command_words(line: str) -> str:
    """Return a command line in words; what has no words is left as it stands."""
    if not line.startswith("CMD"):
        return "halted"
    *actions, target = line.partition(" ")[2].split(", ")
    words = "; ".join([*map(_action, actions), _goto(target)])
    return words.replace("head 1 right; head 2 right", "both heads right")


def _action(action: str) -> str:
    match = _ACTION.fullmatch(action)
    if match is None:
        return action
    name, number, value = match.groups()
    thing = {"HEAD": "head", "C": "carry"}.get(name, name.lower()) + (f" {number}" if number else "")
    if value in ("RIGHT", "LEFT"):
        return f"{thing} {value.lower()}"
    if not value:
        return f"close {thing}"
    return f"{thing} := {brief(value.replace('|', '')[::-1]) if value.startswith('|') else value}"


def _goto(state: str) -> str:
    return "halt" if state == "qH" else f"go to {state}"


def brief(number: str, longest: int = 24) -> str:
    """Return a number, the middle of a long one left out."""
    if len(number) <= longest:
        return number
    return f"{number[:8]}...{number[-8:]} ({sum(map(str.isdigit, number)):,} digits)"


def tape(part: Part, room: int) -> Text:
    """Return a tape of at most ``room`` columns: the digits around the head, which is marked by ``[ ]``."""
    head, size = part.head or 0, len(part.value)
    first, last, note = min(head, 0), max(head + 1, size), ""
    before = after = ""
    if 2 * (last - first) + 1 > room:
        where = str(max(head, 0) + 1) if head < size else "end"
        note = f"  {where:>{max(3, len(str(size)))}}/{size}"
        cells = (room - len(note) - 9) // 2
        start = min(max(head - cells // 2, first), last - cells)
        before, after = "... " * (start > first), " ..." * (start + cells < last)
        first, last = start, start + cells
    text = Text(before, "dim" if note else "")
    for at in range(first, last + 1):
        text.append("[" if at == head else "]" if at == head + 1 else " ", "bold yellow")
        if at < last:
            digit = part.value[at] if 0 <= at < size else " "
            text.append(digit, "bold reverse" if at == head else "dim" if at < head else "")
    return text.append(after + note, "dim")


def _register(part: Part, room: int) -> Text:
    """Return a register of at most ``room`` columns: its digits, the middle of many left out."""
    value = part.value or "-"
    if not value.isdigit() or 2 * len(value) - 1 <= room:
        return Text(" ".join(value) if value.isdigit() else value)
    note = f" ({len(value):,} digits)"
    cells = (room - len(note) - 5) // 4
    return Text(f"{' '.join(value[:cells])} ... {' '.join(value[-cells:])}{note}")


def _state_rows(parts: list[Part], moving: bool, width: int) -> list[Text]:
    """Return the rows that show a state: one for each tape whose head moves, the other parts side by side."""
    rows: list[Text] = []
    beside = False
    for part in parts:
        name, is_tape = Text(f"{part.label:<8} ", "dim"), moving and part.head is not None
        if beside and not is_tape:
            joined = Text.assemble(rows[-1], ("   " + part.label + " ", "dim"), _register(part, width))
            if len(joined) <= width:
                rows[-1] = joined
                continue
        gap = " " if moving and not is_tape else ""  # a tape begins with a separator, its digits stand one further
        rows.append(Text.assemble(name, gap, (tape if is_tape else _register)(part, width - 9 - len(gap))))
        beside = not is_tape
    return rows


def print_trace(  # noqa: PLR0913
    console: Console,
    task: str,
    a: str,
    b: str | None = None,
    *,
    dialect: str = "consistent",
    nested: bool = False,
    max_entries: int = MAX_ENTRIES,
) -> None:
    """Print a trace for people, no wider than the console, with ``max_entries`` entries at most (the middle is cut).

    Raises:
        UserError: the task does not take these operands.
    """
    run, sign = Run.of(task, a, b, dialect), machine(task).sign
    title = f"{a}{sign}{b}=" if sign is not None else f"{task}({a})" if b is None else f"{task}({a}, {b})"
    page = _Page(console, nested, max_entries)
    page.words(Text(title, "bold"))
    page.words(Text(f"{run.machine.title}, {dialect} dialect, {run.num_steps:,} transitions", "dim"))
    page.words(Text("tapes hold the units first; [ ] is where a head reads", "dim"))
    if sign is not None:
        page.exact("aligner in", title, align_in(title))
    page.run(run, run.num_steps)
    if sign is not None:
        page.exact("aligner out", *align_out(task, a, b or ""))
    page.line(Text())
    page.words(Text.assemble(("answer  ", "dim"), (str(run.machine.answer(run.a, run.b)), _STYLES["answer"])))


@dataclass(frozen=True, slots=True)
class _Page:
    """Prints lines no wider than the console; a long text goes on in the next line."""

    console: Console
    nested: bool
    max_entries: int

    @property
    def width(self) -> int:
        return max(MIN_WIDTH, self.console.width)

    def line(self, text: Text, indent: int = 0) -> None:
        text = Text(" " * indent) + text
        text.rstrip()
        self.console.print(text, soft_wrap=True, highlight=False)

    def words(self, text: Text, indent: int = 0) -> None:
        for line in text.wrap(self.console, self.width - indent):
            self.line(line, indent)

    def exact(self, label: str, before: str, after: str) -> None:
        """Print what the aligner reads and writes, cut at the width, not between words."""
        self.line(Text())
        room = self.width - 13
        for name, text in ((label, before), ("->", after)):
            blocks = text.rstrip("\n").split("\n")
            for piece in (block[at : at + room] for block in blocks for at in range(0, len(block), room)):
                self.line(Text.assemble((f"{name:>11}  ", "dim"), piece))
                name = ""

    def run(self, run: Run, total: int, indent: int = 0) -> None:
        """Print the entries 0..total of a machine, the middle of a long run left out."""
        cut = total + 1 > max(self.max_entries, 2 * EDGE)
        for start, stop in [(0, EDGE), (total + 1 - EDGE, total + 1)] if cut else [(0, total + 1)]:
            if start:
                self.line(Text())
                hidden = f"... {brief(f'{start - EDGE:,}')} entries in between (--json gives whole traces) ..."
                self.words(Text(hidden, "dim"), indent)
            for index, entry in enumerate(run.entries(start, stop, total), start):
                if not indent:
                    self.line(Text())
                label = str(index) if index < 10**6 else f"T-{total - index}".removesuffix("-0")
                self.entry(entry, label, not run.machine.composer, indent)

    def entry(self, entry: Entry, label: str, moving: bool, indent: int) -> None:
        """Print the state, tapes, registers and command of one entry, and what it calls."""
        margin = Text.assemble((f"{label:>4}  ", "dim"), (f"{entry.state:<4}", _STYLES["state"]))
        width = self.width - indent - len(margin)
        if isinstance(entry.parts, str):
            rows = [Text(line) for line in entry.parts.splitlines()]
        else:
            rows = _state_rows(entry.parts, moving, width)
            rows += [Text(entry.command, _STYLES["command"])] if entry.command else []
        for row in rows:
            for line in [row] if len(row) <= width else row.wrap(self.console, width):
                self.line(margin + line, indent)
                margin = Text(" " * len(margin))
        if entry.called is not None:
            self.call(entry, entry.called, indent + 10)

    def call(self, entry: Entry, run: Run, indent: int) -> None:
        """Print a call: the machine and its operands, its entries if asked for, what it came back with."""
        total, numbers = run.num_steps, [str(run.a)] if run.machine.unary else [str(run.a), str(run.b)]
        call = f"call {run.machine.title}({', '.join(map(brief, numbers))}), then {entry.then}"
        self.words(Text(call, _STYLES["call"]), indent)
        if self.nested:
            self.run(run, total, indent)
        (last,) = run.entries(total, total + 1, total)
        written = [part for part in reversed(last.parts) if isinstance(part, Part) and part.head is None]
        values = [(part.label, part.value[::-1] if part.value.isdigit() else part.value) for part in written]
        results = ", ".join(f"{label} {brief(value)}" for label, value in values)
        self.words(Text(f"halts after {total:,} transitions: {results}", _STYLES["call"]), indent)
        if entry.quoted != run.machine.halted(run.a, run.b):  # the published rows
            self.words(Text(f"quoted as {entry.quoted.splitlines()[0]}", _STYLES["call"]), indent)
