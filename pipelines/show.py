"""The runs of machines: for people as the entries that a model reads and writes, for programs as JSON."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from ..errors import UserError, quoted, shell_quoted
from ..tm import Dialect, Machine, align_in, align_out, known_dialect, machine, operands, tasks
from ..tm.composer import Composer
from ..tm.expression import EXAMPLE, OPERAND_RULE, parse_expression, parse_operand, signs
from ..tm.turing import TuringMachine, run_to_end
from .settings import check_task
from .spelling import Spelling
from .terminal import open_console

MOST_ENTRIES = 400  # longer runs are cut in the middle when they are shown to people
EDGE = 8  # entries shown at each end of a cut run: two rounds of the loop of mul and div and a bit
CELLS = 8  # of a tape that are shown on each side of a head

_STYLES = {r"^\w+, \w+,": "bold cyan", r"\[[A-Z]+\d*\]": "bold yellow", r"^(CMD|No) .*": "green"}


class Problem(NamedTuple):
    """An expression to be shown; where a file names it, its line and its split."""

    task: str
    a: str
    b: str | None
    line: int | None = None
    split: str | None = None


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
    return Problem(task, a, rest[0] if rest else None)


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
    if task is None:
        problems = [Problem(*parse_expression(text)) for text in given]
    elif task in tasks() and isinstance(kind := machine(task), TuringMachine):
        problems = [Problem(task, kind.operand("a", word), None) for word in given]
    elif given is words:
        problems = [_with_task(words, task)] if words else []
    else:
        problems = [_with_task(line.split(), task) for line in given]
    if not problems:
        allowed = "expressions, as words or as lines of standard input"
        raise UserError("there is no expression to show", allowed=allowed, next_step=EXAMPLE)
    return problems


def problems_in(file: str, others: Sequence[str]) -> list[Problem]:
    """Return the expressions in a file, in its order.

    Raises:
        UserError: ``others`` are to be shown, too; the file cannot be read, or holds what is no expression.
    """
    from .expression_file import in_order, read_expressions

    if others:
        what = f"{quoted(' '.join(others))} and --expressions are two things to show"
        raise UserError(what, next_step="leave out one of them")
    own = read_expressions(file)
    if repeated := sum(one.repeated for one in own.values()):
        open_console(stderr=True).print(f"{repeated:,} more lines repeat one of these")
    return [Problem(task, a, b, line, split) for line, task, a, b, split in in_order(own)]


def show(  # noqa: PLR0913
    problems: Sequence[Problem], console: Console, *, dialect: str, nested: bool, max_steps: int, as_json: bool
) -> None:
    """Print the runs of expressions: for people, or one line of JSON each.

    Raises:
        UserError: a task does not take its operands, or a run is too long for JSON.
    """
    runs = [Run.of(problem, dialect) for problem in problems]
    for index, (run, problem) in enumerate(zip(runs, problems, strict=True)):
        if as_json:
            place = {} if problem.line is None else {"line": problem.line, "split": problem.split}
            print(json.dumps(run.to_json(max_steps) | place))
            continue
        if index:
            console.print()
        if problem.line is not None:
            console.print(Text(f"line {problem.line:,}, split {problem.split}, {run.machine.name}", "dim"))
        print_run(run, console, nested=nested)


@dataclass(frozen=True)
class Run:
    """One machine at work on one expression that it takes: numbers (b is 0 where it has one), or a word."""

    machine: Machine
    a: Any
    b: Any
    dialect: Dialect

    @classmethod
    def of(cls, problem: Problem, dialect: str) -> "Run":
        """Return the run of an expression; raises UserError where the task does not take its operands."""
        return cls(*operands(problem.task, problem.a, problem.b), known_dialect(dialect))

    @property
    def title(self) -> str:
        """What stands before the answer: ``12+9=``."""
        own = self.machine
        if own.numbers and own.sign is not None:
            return f"{self.a}{own.sign}{self.b}="
        return f"{own.name}({self.a}) = " if own.unary else f"{own.name}({self.a}, {self.b}) = "

    @property
    def num_steps(self) -> int:
        return self.machine.num_steps(self.a, self.b)

    def entries(self, most: int, halted: str | None = None) -> Iterator[tuple[int, str]]:
        """Yield the entries of a run with their numbers, those in the middle of a long one left out.

        ``halted`` stands in place of the last one: published rows quote some in another form.
        """
        own, total = self.machine, self.num_steps
        if total < most:
            steps = own.transitions(self.a, self.b, self.dialect)
            yield from enumerate(step.prompt for step in steps)
        else:
            for index in (*range(EDGE), *range(total - EDGE + 1, total)):
                yield index, own.transition(self.a, self.b, index, self.dialect).prompt
        yield total, own.halted(self.a, self.b) if halted is None else halted

    def called(self, index: int) -> "Run":
        """Return the run of the machine that a composer's entry waits for."""
        assert isinstance(self.machine, Composer)
        calls = self.machine.calls
        turn, call = (index + len(calls) - 1) // len(calls), calls[(index - 1) % len(calls)]
        x, y, *_ = *self.machine.operands(self.a, self.b, turn, call), 0
        return Run(machine(call.task), x, y, self.dialect)

    def to_json(self, most: int) -> dict[str, Any]:
        """Return task, a, b, every step as [prompt, completion], and the aligner's two rows (null for helpers).

        Raises:
            UserError: there are more than ``most`` steps.
        """
        own, a, b = self.machine, self.a, self.b
        if isinstance(own, TuringMachine):
            long = not run_to_end(own.table, own.start(a), most).halted
        else:
            long = self.num_steps > most
        if long:
            raise UserError(
                f"{own.name} does not halt within {most:,} steps",
                where=f"{own.name} {brief(str(a))} {'' if own.unary else brief(str(b))}".rstrip(),
                allowed="--json gives whole runs of up to --max-steps steps",
                next_step="leave --json out to see parts of the run, or raise --max-steps",
            )
        steps = [[step.prompt, step.completion] for step in own.transitions(a, b, self.dialect)]
        found = {"task": own.name, "a": str(a), "b": None if own.unary else str(b), "steps": steps}
        raw = self.title if own.numbers and own.sign is not None else None
        aligned = ([raw, align_in(raw)], list(align_out(own.name, a, b))) if raw else (None, None)
        return found | dict(zip(("aligner_in", "aligner_out"), aligned, strict=True))


def print_run(run: Run, console: Console, *, nested: bool = False, most: int = MOST_ENTRIES) -> None:
    """Print a run for people, ``most`` entries at most: the first and the last ones of a longer one."""
    own = run.machine
    if isinstance(own, TuringMachine):
        end = run_to_end(own.table, own.start(run.a), 10**7)
        how = "halts" if end.halted else "goes on"
        told = f"{how} after {end.steps:,} steps in state {end.state}, {end.marks:,} cells are not blank"
        console.print(Text(f"{own.title} on {run.a or 'a blank tape'}: {told}\n", "bold"), soft_wrap=True)
        if not end.halted or end.steps >= most:  # the last entries would need as long a walk each
            first = islice(own.transitions(run.a, run.b, run.dialect), EDGE)
            _print_entries(console, run, enumerate(step.prompt for step in first), nested, 0)
            console.print(Text("... and so on"))
            return
    else:
        console.print(Text(run.title.removesuffix(" = "), "bold"), overflow="fold")
        console.print(Text(f"{own.title}, {run.dialect} dialect, {brief(f'{run.num_steps:,}')} steps\n", "dim"))
    _print_entries(console, run, run.entries(most), nested, 0)
    answer = own.answer(run.a, run.b)
    if not isinstance(own, TuringMachine):
        console.print(Text(f"\n{run.title}{answer}", "bold green"), overflow="fold")
    elif own.output is not None:
        console.print(Text(f"\nanswer {answer or 'nothing'}", "bold green"), overflow="fold")


def _print_entries(console: Console, run: Run, entries: Iterable[tuple[int, str]], nested: bool, indent: int) -> None:
    before = -1
    for index, entry in entries:
        if index > before + 1:
            hidden = f"... {brief(f'{index - before - 1:,}')} entries in between (--json gives whole runs) ..."
            _print_lines(console, [hidden], "", indent)
        before = index
        label = str(index) if index < 10**4 else f"T-{run.num_steps - index}".removesuffix("-0")
        lines = entry.rstrip("\n").split("\n")
        _print_lines(console, lines[:2], label, indent)
        if nested and lines[2:]:
            called = run.called(index)
            _print_entries(console, called, called.entries(MOST_ENTRIES, "\n".join(lines[2:])), nested, indent + 6)
        else:
            _print_lines(console, lines[2:], "", indent + 6)


def _print_lines(console: Console, lines: Iterable[str], label: str, indent: int) -> None:
    """Print lines of an entry, behind its number; a long one goes on in the next line."""
    for line in lines:
        text = Text(_cut(line))
        for pattern, style in _STYLES.items():
            text.highlight_regex(pattern, style)
        for part in text.wrap(console, max(console.width - indent - 6, 20)):
            part.rstrip()
            console.print(Text.assemble(" " * indent, (f"{label:>4}  ", "dim"), part), soft_wrap=True)
            label = ""


def _cut(line: str) -> str:
    """Return a line whose long tapes are cut, so that what stands beside a head is seen."""
    first = ", q0, " in line  # there heads stand before their tapes

    def short(tape: re.Match[str]) -> str:
        left = tape[0].count("|") - CELLS
        if left < CELLS:
            return tape[0]
        if first or not tape[1]:
            return f"{tape[0][: 2 * CELLS]}...({left})"
        return f"({left})...{tape[0][-2 * CELLS :]}"

    return re.sub(r"(?:\|\d)+(?=(\[)?)", short, line)


def brief(number: str, longest: int = 24) -> str:
    """Return a number, the middle of a long one left out."""
    if len(number) <= longest:
        return number
    return f"{number[:8]}...{number[-8:]} ({sum(map(str.isdigit, number)):,} digits)"
