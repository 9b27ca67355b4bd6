"""The trace of one expression: tapes, heads and commands in words for people, JSON for programs."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from ..errors import UserError, clip
from ..tm import Dialect, Machine, Transition, align_in, align_out, known_dialect, machine, operands, transitions
from ..tm.expression import EXAMPLE, OPERAND_RULE, parse_expression, parse_operand
from .trace_view import Part, brief, command_words, goto, parse_state, state_of, state_rows

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

    def transition(self, index: int) -> Transition:
        """Return one transition."""
        return self.machine.transition(self.a, self.b, index, self.dialect)

    def entries(self, start: int, stop: int, total: int) -> Iterator[tuple[int, str, str | None]]:
        """Yield (index, text, initial state line of the machine that it calls) of entries start..stop-1."""
        before = self.transition(start - 1) if start else None
        for index in range(start, stop):
            started = before.completion.split("\n")[2:3] if before else []
            if index == total and before:
                yield index, before.completion, None
                return
            before = self.transition(index)
            yield index, before.prompt, started[0] if started and started[0] else None


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
            raise UserError(f"show has no option {clip(word)}", next_step="caef-data show --help")
    if list(words) != ["-"]:
        return [parse_problem(words, task)] if task else [parse_problem([word]) for word in words]
    found = [parse_problem(line.split() if task else [line.strip()], task) for line in lines if line.strip()]
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
    last = run.transition(total - 1).completion
    result = (parse_state(last.split("\n")[0]) or [Part("result", "?")])[-1].number
    page.line(Text())
    page.words(Text.assemble(("answer  ", "dim"), (result, _STYLES["answer"])))


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
            for index, text, started in run.entries(start, stop, total):
                if not indent:
                    self.line(Text())
                label = str(index) if index < 10**6 else f"T-{total - index}".removesuffix("-0")
                self.entry(run, label, text, indent)
                if started is not None:
                    self.call(text, started, run.dialect, indent + 10)

    def entry(self, run: Run, label: str, text: str, indent: int) -> None:
        """Print the state, tapes, registers and command of one entry; of a call only the state."""
        state_line, command = text.split("\n")[:2]
        margin = Text.assemble((f"{label:>4}  ", "dim"), (f"{state_of(state_line):<4}", _STYLES["state"]))
        width = self.width - indent - len(margin)
        parts = parse_state(state_line)
        moving = not run.machine.composer
        rows = [Text(state_line)] if parts is None else state_rows(parts, moving, width)
        if "[CALL]" not in command:
            rows.append(Text(command_words(command), _STYLES["command"]))
        for row in rows:
            for line in [row] if len(row) <= width else row.wrap(self.console, width):
                self.line(margin + line, indent)
                margin = Text(" " * len(margin))

    def call(self, text: str, started: str, dialect: Dialect, indent: int) -> None:
        """Print a call: the machine and its operands, its entries if asked for, what it came back with."""
        _, command, halted, *_ = text.split("\n")
        called = [part.number for part in parse_state(started) or () if part.head is not None]
        title = started.partition(",")[0]
        a, b = (int(number) for number in [*called, "0"][:2])
        run = Run(machine(title.lower()), a, b, dialect)
        total = run.num_steps
        call = f"call {title}({', '.join(map(brief, called))}), then {goto(command.rpartition(' ')[2])}"
        self.words(Text(call, _STYLES["call"]), indent)
        if self.nested:
            self.run(run, total, indent)
        registers = [part for part in reversed(parse_state(halted) or ()) if part.head is None]
        results = ", ".join(f"{part.label} {brief(part.number)}" for part in registers)
        self.words(Text(f"halts after {total:,} transitions: {results}", _STYLES["call"]), indent)
