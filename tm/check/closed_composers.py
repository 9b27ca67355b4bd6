"""The same of SUB, MUL and DIV, which call other machines; ``problem`` finds any task.

A prompt ends with the last lines of the machine called, a completion with its first ones.
"""

from functools import cached_property
from typing import ClassVar

from ...errors import quoted
from .closed import Add, Equal, GreaterThan, LeftMask, LessThan, Problem, Reflection, first_lines, last_line
from .text import HALT, tape

MAX_DIGITS = 20_000
Call = tuple[str, str, str, str]  # state and command line, the machine called, and its tapes


class Composer(Problem):
    """A machine that calls others: each of its entries but the first and the last has a call."""

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.line = f"[HEAD1]{self.left} [HEAD2]{self.right} "

    def ends(self) -> tuple[str, str]:
        """Return the first state line and command, and the last state line."""
        raise NotImplementedError

    def call(self, step: int) -> Call:
        """Return what is done in the entry before transition ``step``, 1 or later."""
        raise NotImplementedError

    def returned(self, step: int) -> str:
        """Return what the machine called there writes: a tape, True or False."""
        raise NotImplementedError

    def quoted(self, name: str, x: str, y: str, result: str, dialect: str) -> str:
        """Return the last state line of a machine called."""
        return last_line(name, x, y, result)

    def prompt(self, step: int, dialect: str) -> str:
        if step == 0:
            return f"{self.ends()[0]}\n"
        head, name, x, y = self.call(step)
        return f"{head}\n{self.quoted(name, x, y, self.returned(step), dialect)}\n{HALT}\n"

    def completion(self, step: int, dialect: str) -> str:
        if step == self.n_steps - 1:
            return f"{self.ends()[1]}\n{HALT}"
        head, name, x, y = self.call(step + 1)
        return f"{head}\n{first_lines(name, x, y)}"


class Sub(Composer):
    """SUB: complement, two additions, and the top digit off."""

    task, name, sign, n_steps = "sub", "SUB", "-", 5
    calls: ClassVar = {"q1": "reflection", "q2": "add", "q3": "add", "q4": "left_mask"}

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.result = tape(self.x - self.y)

    @cached_property
    def called(self) -> tuple[tuple[str, str, str, str, str], ...]:
        """The machines called in turn: name, state after it, its tapes, what it writes."""
        nines = int(10 ** len(self.a)) - 1
        rest, total = tape(nines - self.y), tape(self.x + nines - self.y)
        above = tape(self.x + nines - self.y + 1)  # 10^n + a - b
        return (
            ("REFLECTION", "q2", tape(nines), self.right, rest),
            ("ADD", "q3", self.left, rest, total),
            ("ADD", "q4", total, "|1", above),
            ("LEFT_MASK", "qH", above, "", "0" if self.x == self.y else self.result),
        )

    def ends(self) -> tuple[str, str]:
        first = f"SUB, q0, {self.line}\nCMD q1"
        return first, f"SUB, qH, {self.line}{self.result}"

    def call(self, step: int) -> Call:
        name, after, x, y, _ = self.called[step - 1]
        return f"SUB, q{step}, {self.line}\nCMD [CALL] {name}, {after}", name, x, y

    def returned(self, step: int) -> str:
        return self.called[step - 1][4]

    def quoted(self, name: str, x: str, y: str, result: str, dialect: str) -> str:
        published = dialect == "published"  # no carry, and all digits below the top one
        line = last_line(name, x, y, x[:-2] if published and name == "LEFT_MASK" else result)
        return line.replace("[C]1", "[C]0") if published else line


class Mul(Composer):
    """MUL: repeated addition; at the k-th visit of q1 the count is k and the output k * a."""

    task, name, sign = "mul", "MUL", "*"
    calls: ClassVar = {"q1": "less_than", "q2": "add", "q3": "add"}

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.n_steps = 3 * self.y - 1

    def ends(self) -> tuple[str, str]:
        first = f"MUL, q0, {self.line}[COUNT] [OUTPUT]\nCMD [COUNT] 1, [OUTPUT]{self.left}, q1"
        return first, f"MUL, qH, {self.line}[COUNT]{self.right} {self.result}"

    def call(self, step: int) -> Call:
        k, phase = divmod(step + 2, 3)
        count, output = tape(k), tape(k * self.x if phase < 2 else (k + 1) * self.x)
        name, after, x, y = (
            ("LESS_THAN", "q2", count, self.right),
            ("ADD", "q3", self.left, output),
            ("ADD", "q1", count, "|1"),
        )[phase]
        return f"MUL, q{phase + 1}, {self.line}[COUNT]{count} [OUTPUT]{output}\nCMD [CALL] {name}, {after}", name, x, y

    def returned(self, step: int) -> str:
        k, phase = divmod(step + 2, 3)
        return str(k < self.y) if phase == 0 else tape((k + 1) * self.x if phase == 1 else k + 1)

    def quoted(self, name: str, x: str, y: str, result: str, dialect: str) -> str:
        if name == "LESS_THAN" and dialect == "published":
            x = x[::-2].replace("", "|")[:-1]  # the count in reading order
        return super().quoted(name, x, y, result, dialect)

    @property
    def result(self) -> str:  # type: ignore[override]
        return tape(self.x * self.y)


class Div(Composer):
    """DIV: counts the divisor up past the dividend; at the k-th visit of q1 output is k, count (k + 1) * b."""

    task, name, sign = "div", "DIV", "//"
    calls: ClassVar = {"q1": "greater_than", "q2": "add", "q3": "add"}

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.quotient = self.x // self.y
        self.n_steps = 3 * self.quotient + 2

    def ends(self) -> tuple[str, str]:
        first = f"DIV, q0, {self.line}[COUNT] [OUTPUT]\nCMD [COUNT]{self.right}, [OUTPUT] 0, q1"
        return first, f"DIV, qH, {self.line}[COUNT]{tape((self.quotient + 1) * self.y)} {self.result}"

    def call(self, step: int) -> Call:
        k, phase = divmod(step - 1, 3)
        count, output = tape((k + 1) * self.y), tape(k if phase < 2 else k + 1)
        name, after, x, y = (
            ("GREATER_THAN", "q2", count, self.left),
            ("ADD", "q3", output, "|1"),
            ("ADD", "q1", self.right, count),
        )[phase]
        return f"DIV, q{phase + 1}, {self.line}[COUNT]{count} [OUTPUT]{output}\nCMD [CALL] {name}, {after}", name, x, y

    def returned(self, step: int) -> str:
        k, phase = divmod(step - 1, 3)
        return str(k >= self.quotient) if phase == 0 else tape(k + 1 if phase == 1 else (k + 2) * self.y)

    @property
    def result(self) -> str:  # type: ignore[override]
        return tape(self.quotient)


# ----------------------------------------------------------------------------------------------------------
# Any task

PROBLEMS: dict[str, type[Problem]] = {
    kind.task: kind for kind in (Add, Equal, GreaterThan, LessThan, Reflection, LeftMask, Sub, Mul, Div)
}


def problem(task: str, a: str, b: str | None) -> Problem | str:
    """Return the problem, or what is wrong with its operands."""
    for name, text in (("a", a), ("b", b)) if b is not None or task != "left_mask" else (("a", a),):
        if not isinstance(text, str) or not (text.isascii() and text.isdigit()):
            return f"operand {name} must be a decimal string, found {quoted(text)}"
        if text[0] == "0" and text != "0":
            return f"operand {name} has leading zeros: {quoted(text)}"
        if len(text) > MAX_DIGITS:
            return f"operand {name} has {len(text):,} digits; at most {MAX_DIGITS:,} can be checked"
    wrong = _law(task, a, b or "")
    return PROBLEMS[task](a, b) if wrong is None else wrong


def _law(task: str, a: str, b: str) -> str | None:
    if task == "sub":
        return f"sub needs a >= b, found {quoted(a)} - {quoted(b)}" if (len(a), a) < (len(b), b) else None
    if task in ("mul", "div"):
        return f"{task} needs b >= 1" if b == "0" else None
    if task == "left_mask":
        return f"left_mask has one operand, found b = {quoted(b)}" if b else None
    if task == "reflection" and a.strip("9"):
        return f"reflection needs an a of nines only, found {quoted(a)}"
    if task == "reflection" and len(b) > len(a):
        return f"reflection needs b <= a, found {quoted(a)}, {quoted(b)}"
    return None
