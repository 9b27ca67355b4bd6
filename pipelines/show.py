"""The trace of one expression: tapes, heads and commands in words for people, JSON for programs."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from ..errors import UserError, quoted, shell_quoted
from ..tm import Dialect, Machine, align_in, align_out, known_dialect, machine, operands, transitions
from ..tm.basic import BasicMachine
from ..tm.composer import Composer
from ..tm.expression import EXAMPLE, OPERAND_RULE, parse_expression, parse_operand, signs
from ..tm.interpreter import execute, tape_text, units_first
from ..tm.machine import HALT
from .trace_view import Part, basic_parts, brief, command_words, composer_parts, goto, place, state_rows

MAX_ENTRIES = 400
"""Longer traces are cut in the middle when they are shown to people."""
EDGE = 8
"""Entries shown at each end of a cut trace: two rounds of the loop of mul and div and a bit."""
MIN_WIDTH = 60
"""Narrower terminals get lines of this width."""

_STYLES = {"state": "bold cyan", "command": "green", "call": "magenta", "answer": "bold green"}


@dataclass(frozen=True, slots=True)
class Run:
    """One machine at work on one expression that it takes (b is 0 where it has one operand)."""

    machine: Machine
    a: int
    b: int
    dialect: Dialect

    @property
    def num_steps(self) -> int:
        """The number of transitions."""
        return self.machine.num_steps(self.a, self.b)

    def entries(self, start: int, stop: int, total: int) -> Iterator["Entry"]:
        """Yield entries start..stop-1 of a run of ``total`` transitions."""
        machine, a, b = self.machine, self.a, self.b
        if isinstance(machine, BasicMachine):
            now, _ = machine.walk(a, b, start)
            for index in range(start, stop):
                command = machine.line(now)
                yield Entry(now.state, basic_parts(machine, now), command_words(command))
                now = execute(now, command) if index < total else now
        for index in range(start, stop):
            if isinstance(machine, Composer):
                yield self.composed(machine, index, total)
            elif not isinstance(machine, BasicMachine):
                step = machine.transition(a, b, min(index, total - 1), self.dialect)
                state, text = (step.next_state, step.completion) if index == total else (step.state, step.prompt)
                yield Entry(state, text, "")

    def composed(self, composer: Composer, index: int, total: int) -> "Entry":
        """Return an entry of a composer."""
        a, b = self.a, self.b
        turn, state, call = place(composer, a, b, index, total)
        values = {"a": a, "b": b, **(composer.registers(a, b, turn, state) if index else {})}
        parts = composer_parts(composer, values, state)
        if call is None:
            begin = composer.begin.format(a=tape_text(units_first(a)), b=tape_text(units_first(b)))
            return Entry(state, parts, command_words(begin if index == 0 else HALT))
        x, y, *_ = *composer.operands(a, b, turn, call), 0
        quoted = composer.transition(a, b, index, self.dialect).prompt.split("\n", 2)[2]
        return Entry(state, parts, "", Run(machine(call.task), x, y, self.dialect), goto(call.then), quoted)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a machine."""

    state: str
    parts: list[Part] | str
    """Tapes and registers; the text itself of a machine that has none."""
    command: str
    """In words; empty where a machine is called."""
    called: Run | None = None
    then: str = ""
    """In words, where the machine that calls goes on."""
    quoted: str = ""
    """The entry with which the called machine halted, as this entry's prompt has it."""


def parse_problem(words: Sequence[str], task: str | None = None) -> tuple[str, str, str | None]:
    """Return (task, a, b) of what stands on a command line: one expression, or a task and its operands.

    Args:
        words: ``["47819-12345="]`` without a task; ``["45321"]`` or ``["99", "7"]`` with one.
        task: a task's name; b is None where it has one operand.

    Raises:
        UserError: the wrong number of words, an unknown task, or what is no expression or operand.
    """
    if task is None:
        if len(words) != 1:
            raise UserError(
                f"one expression is needed, {len(words)} words were given",
                allowed="an expression in quotes, or --task and its operands",
                next_step=f"{EXAMPLE}, or caef-data show --task left_mask 45321",
            )
        return parse_expression(words[0])
    kind = machine(task)
    names = "a" if kind.unary else "ab"
    if len(words) != len(names):
        raise UserError(
            f"{task} takes {len(names)} operand{'s' * (len(names) > 1)}, {len(words)} were given",
            allowed=OPERAND_RULE,
            next_step=f"caef-data show --task {task} {' '.join(kind.example[: len(names)])}",
        )
    found = [parse_operand(word, name) for word, name in zip(words, names, strict=True)]
    return task, found[0], found[1] if len(found) > 1 else None


def _run(task: str, a: str, b: str | None, dialect: str) -> Run:
    return Run(*operands(task, a, b), known_dialect(dialect))


def show(  # noqa: PLR0913
    problems: Sequence[tuple[str, str, str | None]],
    console: Console,
    *,
    dialect: str,
    nested: bool = False,
    max_steps: int = 10_000,
    as_json: bool = False,
) -> None:
    """Print the traces of expressions, (task, a, b) each: for people, or one line of JSON each.

    Raises:
        UserError: a task does not take its operands, or a trace is too long for JSON.
    """
    for problem in problems:
        _run(*problem, dialect)
    for index, (task, a, b) in enumerate(problems):
        if as_json:
            print(json.dumps(show_json(task, a, b, dialect, max_steps)))
            continue
        if index:
            console.print()
        print_trace(console, task, a, b, dialect=dialect, nested=nested)


def problems_of(words: Sequence[str], task: str | None, lines: Iterable[str]) -> list[tuple[str, str, str | None]]:
    """Return the expressions, (task, a, b) each, that a command line names, ``-`` for the lines of standard input.

    Args:
        words: expressions; the operands of one where ``task`` is given.
        task: the task of bare operands.
        lines: what is read in place of ``-``: an expression, or operands, a line. Empty lines count for nothing.

    Raises:
        UserError: a word is no expression, or there is none.
    """
    for word in words:
        if word.startswith("-") and word != "-" and not word[1].isdecimal():
            raise UserError(f"show has no option {quoted(word)}", next_step="caef-data show --help")
    if task is None and len(words) > 1 and not {*words}.isdisjoint({*signs(), "="}):
        raise UserError(
            "an expression has no blanks in it",
            where=quoted(" ".join(words)),
            next_step=f"caef-data show {shell_quoted(''.join(words)[:100])}",
        )
    if words and list(words) != ["-"]:
        return [parse_problem(words, task)] if task else [parse_problem([word]) for word in words]
    found = [parse_problem(line.split() if task else [line.strip()], task) for line in lines if words and line.strip()]
    if not found:
        raise UserError(
            "there is no expression to show",
            allowed="expressions, as words or as lines of standard input",
            next_step='caef-data show "47819-12345="',
        )
    return found


def show_json(
    task: str, a: str, b: str | None = None, dialect: str = "consistent", max_steps: int = 10_000
) -> dict[str, Any]:
    """Return task, a, b, every step as [prompt, completion], and the aligner's two rows (null for helpers).

    Raises:
        UserError: these operands are not the task's, or there are more than ``max_steps`` transitions.
    """
    total = _run(task, a, b, dialect).num_steps
    if total > max_steps:
        raise UserError(
            f"the trace has {brief(f'{total:,}')} transitions, which is more than {max_steps:,}",
            where=f"task {task}, operands {brief(a)}, {brief(b or '-')}",
            allowed="--json gives whole traces of up to --max-steps transitions",
            next_step="leave --json out to see the first and the last entries, or raise --max-steps",
        )
    steps = [[step.prompt, step.completion] for step in transitions(task, a, b, dialect=dialect)]
    sign = machine(task).sign
    entry_in = entry_out = None
    if sign is not None:
        entry_in = [f"{a}{sign}{b}=", align_in(f"{a}{sign}{b}=")]
        entry_out = list(align_out(task, a, b or ""))
    return {"task": task, "a": a, "b": b, "steps": steps, "aligner_in": entry_in, "aligner_out": entry_out}


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
    """Print a trace for people, in the width of the console: aligner, entries, aligner, answer.

    Args:
        console: where to print; without colours everything can still be told apart.
        task: the machine.
        a: operand 1, checked decimal text.
        b: operand 2, None for machines with one operand.
        dialect: which text the composers' prompts hold.
        nested: show the entries of called machines too, indented.
        max_entries: cut a longer trace in the middle.

    Raises:
        UserError: the task does not take these operands.
    """
    run, sign = _run(task, a, b, dialect), machine(task).sign
    total = run.num_steps
    title = f"{a}{sign}{b}=" if sign is not None else f"{task}({a})" if b is None else f"{task}({a}, {b})"
    page = _Page(console, nested, max_entries)
    page.words(Text(title, "bold"))
    page.words(Text(f"{run.machine.title}, {dialect} dialect, {total:,} transitions", "dim"))
    page.words(Text("tapes hold the units first; [ ] is where a head reads", "dim"))
    if sign is not None:
        page.exact("aligner in", title, align_in(title))
    page.run(run, total)
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
            for block in text.rstrip("\n").split("\n"):
                for at in range(0, len(block), room):
                    self.line(Text.assemble((f"{name:>11}  ", "dim"), block[at : at + room]))
                    name = ""

    def run(self, run: Run, total: int, indent: int = 0) -> None:
        """Print the entries 0..total of a machine, the middle of a long run left out."""
        ranges = [(0, total + 1)]
        if total + 1 > max(self.max_entries, 2 * EDGE):
            ranges = [(0, EDGE), (total + 1 - EDGE, total + 1)]
        for start, stop in ranges:
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
            rows = state_rows(entry.parts, moving, width)
            rows += [Text(entry.command, _STYLES["command"])] if entry.command else []
        for row in rows:
            for line in [row] if len(row) <= width else row.wrap(self.console, width):
                self.line(margin + line, indent)
                margin = Text(" " * len(margin))
        if entry.called is not None:
            self.call(entry, entry.called, indent + 10)

    def call(self, entry: Entry, run: Run, indent: int) -> None:
        """Print a call: the machine and its operands, its entries if asked for, what it came back with."""
        total, names = run.num_steps, [str(run.a)] if run.machine.unary else [str(run.a), str(run.b)]
        call = f"call {run.machine.title}({', '.join(map(brief, names))}), then {entry.then}"
        self.words(Text(call, _STYLES["call"]), indent)
        if self.nested:
            self.run(run, total, indent)
        (last,) = run.entries(total, total + 1, total)
        registers = [part for part in reversed(last.parts) if isinstance(part, Part) and part.head is None]
        results = ", ".join(f"{part.label} {brief(part.number)}" for part in registers)
        self.words(Text(f"halts after {total:,} transitions: {results}", _STYLES["call"]), indent)
        if entry.quoted != run.machine.halted(run.a, run.b):  # the published rows
            self.words(Text(f"quoted as {entry.quoted.splitlines()[0]}", _STYLES["call"]), indent)
