"""Every entry of every run of the nine machines, as a direct function of operands and step.

The second, independent account of what rows must hold, from Python integers. An entry, a state line and a command
line, is the prompt of its transition and the completion of the one before. A composer's prompt ends with the last lines
of the machine that it calls, its completion with the first ones.
"""

from functools import cached_property, lru_cache
from itertools import product
from typing import ClassVar

from ...errors import quoted

HALT = "No command to execute. Halt state."
MAX_DIGITS = 20_000
_CHUNK, _LIMIT = 4_000, 10**4_000  # Python refuses to convert more than 4,300 digits at once


def number(digits: str) -> int:
    """Return the value of a decimal string of any length."""
    return int(digits) if len(digits) <= _CHUNK else number(digits[:-_CHUNK]) * _LIMIT + int(digits[-_CHUNK:])


def decimal(value: int) -> str:
    """Return a non-negative integer of any size in decimal."""
    return str(value) if value < _LIMIT else decimal(value // _LIMIT) + str(value % _LIMIT).zfill(_CHUNK)


def written(digits: str) -> str:
    """Return a decimal string as it stands on a tape: ``120`` -> ``|0|2|1``; an empty one gives nothing."""
    return digits.replace("", "|")[:0:-1]


@lru_cache(512)  # the prompt and the completion of a step show the same registers
def tape(value: int) -> str:
    """Return a non-negative integer as it stands on a tape."""
    return written(decimal(value))


class Problem:
    """A task and its operands; all texts are whole prompts or completions.

    Attributes:
        task, name: of the machine, ``add`` and ``ADD``.
        sign: between the operands of the raw text; None where there is no such text.
        calls: for each state that calls a machine, the task called.
        n_steps: transitions of the run.
        result: what the last entry has written: a tape, True or False, or a bare 0.
        initial, halting: the first prompt and the last completion, the same in both dialects.
        question, answer: of the raw text, ``12+9=`` and ``21``.
    """

    task: ClassVar[str]
    name: ClassVar[str]
    sign: ClassVar[str | None] = None
    calls: ClassVar[dict[str, str]] = {}
    n_steps: int
    result: str

    def __init__(self, a: str, b: str | None) -> None:
        self.a, self.b = a, b or ""
        self.x, self.y = number(a), number(b) if b else 0
        self.left, self.right = written(a), written(self.b)

    def prompt(self, step: int, dialect: str) -> str:
        """Return the text that transition ``step`` starts from; of a machine that calls no other also the last one."""
        if 0 < step < self.n_steps:
            return self.entry(step)
        line = f"{self.last_line()}\n{HALT}" if step else first_lines(self.name, self.left, self.right)
        return f"{line}\n"

    def entry(self, step: int) -> str:
        """Return the text of an entry between the first and the last one."""
        raise NotImplementedError

    def last_line(self) -> str:
        return last_line(self.name, self.left, self.right, self.result)

    def completion(self, step: int, dialect: str) -> str:
        """Return the text that transition ``step`` gives."""
        return self.prompt(step + 1, dialect)

    def columns(self, step: int, dialect: str) -> tuple[str, str, str, str, str | None]:
        """Return prompt, completion, the states of both, and the task that the completion calls."""
        prompt, completion, at = self.prompt(step, dialect), self.completion(step, dialect), len(self.name) + 2
        after = completion[at : at + 2]
        return prompt, completion, prompt[at : at + 2], after, self.calls.get(after)

    @property
    def initial(self) -> str:
        return self.prompt(0, "consistent")

    @property
    def halting(self) -> str:
        return self.completion(self.n_steps - 1, "consistent")

    @property
    def answer(self) -> str:
        return self.result[::-2] if self.result[0] == "|" else self.result

    @property
    def question(self) -> str:
        return f"{self.a}{self.sign}{self.b}="


def first_lines(name: str, x: str, y: str) -> str:
    """Return the state line and the command of a machine that starts on these tapes."""
    if name == "LEFT_MASK":
        return f"LEFT_MASK, q0, [HEAD] {x} [OUTPUT]\nCMD [HEAD] RIGHT, q1"
    if name == "ADD":
        return f"ADD, q0, [HEAD1] {x}[HEAD2] {y} [C] [OUTPUT]\nCMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1"
    writes = "" if name == "REFLECTION" else f"[OUTPUT] {name == 'EQUAL'}, "
    return f"{name}, q0, [HEAD1] {x}[HEAD2] {y} [OUTPUT]\nCMD [HEAD1] RIGHT, [HEAD2] RIGHT, {writes}q1"


def heads(x: str, y: str, i: int) -> str:
    """Return two tapes with their heads after the first ``i`` characters, or at the end of a shorter one."""
    return f"{x[:i]}[HEAD1]{x[i:]} {y[:i]}[HEAD2]{y[i:]}"


def last_line(name: str, x: str, y: str, result: str) -> str:
    """Return the state line of a machine, other than EQUAL, that has halted on these tapes."""
    if name == "LEFT_MASK":
        return f"LEFT_MASK, qH,  {x}[HEAD] {result}"
    longer, shorter = (len(x), len(y)) if len(x) > len(y) else (len(y), len(x))
    carry = f"[C]{len(result) > longer:d} " if name == "ADD" else ""
    at = longer if name in ("ADD", "REFLECTION") else shorter  # comparisons read as far as the shorter tape
    return f"{name}, qH,  {heads(x, y, at)} {carry}{result}"


def _additions() -> dict[tuple[str, str, str], tuple[int, str]]:
    """Return the carry in and the command of each step of ADD, by the digits under the heads and that of the sum."""
    steps = {}
    for x, y, carry in product(("", *"0123456789"), ("", *"0123456789"), (0, 1)):
        moves = ("[HEAD1] RIGHT, " if x else "") + ("[HEAD2] RIGHT, " if y else "")
        over, unit = divmod(int(x or 0) + int(y or 0) + carry, 10)
        steps[x, y, str(unit)] = carry, f"[C] {over}, [OUTPUT] {unit}, [OUTPUT] RIGHT, {moves}q1"
    return steps


class Add(Problem):
    """ADD: entry k + 1 has read k digits."""

    task, name, sign = "add", "ADD", "+"
    steps: ClassVar = _additions()

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.result = tape(self.x + self.y)
        self.n_steps = max(len(a), len(self.b)) + 2

    def entry(self, step: int) -> str:
        x, y, total, i = self.left, self.right, self.result, 2 * step - 2
        if step < self.n_steps - 1:
            carry, command = self.steps[x[i + 1 : i + 2], y[i + 1 : i + 2], total[i + 1]]
        else:
            carry, command = int(len(total) > i), f"[OUTPUT] {int(len(total) > i)}, [OUTPUT], [C], qH"
        return f"ADD, q1,  {heads(x, y, i)} [C]{carry} {total[:i]}[OUTPUT]\nCMD: {command}\n"


class GreaterThan(Problem):
    """GREATER_THAN reads as many digits as the shorter operand has; its output is right for those read so far."""

    task, name, sign = "greater_than", "GREATER_THAN", ">"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.stop = min(len(self.a), len(self.b))
        less = self.sign == "<"  # the answer is whether large and small are what their names say
        self.large, self.small = (self.b, self.a) if less else (self.a, self.b)
        self.n_steps, self.result = self.stop + 2, str(self.x < self.y if less else self.x > self.y)

    def entry(self, step: int) -> str:
        large, small, k = self.large, self.small, step - 1
        output = k > 0 and large[-k:] > small[-k:]
        if k < self.stop:
            writes = "" if large[-step] == small[-step] else f"[OUTPUT] {large[-step] > small[-step]}, "
            command = f"[HEAD1] RIGHT, [HEAD2] RIGHT, {writes}q1"
        else:
            writes = "" if len(large) == len(small) else f"[OUTPUT] {len(large) > len(small)}, "
            command = f"{writes}[OUTPUT], qH"
        return f"{self.name}, q1,  {heads(self.left, self.right, 2 * k)} [OUTPUT]{output}\nCMD {command}\n"


class LessThan(GreaterThan):
    """LESS_THAN."""

    task, name, sign = "less_than", "LESS_THAN", "<"


class Equal(Problem):
    """EQUAL stops at the first position where the operands differ."""

    task, name, sign = "equal", "EQUAL", "=="

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        pairs = zip(reversed(self.a), reversed(self.b), strict=False)
        self.stop = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(self.a), len(self.b)))
        self.n_steps, self.result = self.stop + 2, str(self.x == self.y)

    def entry(self, step: int) -> str:
        at_end = "[OUTPUT], qH" if self.x == self.y else "[OUTPUT] False, [OUTPUT], qH"
        command = "[HEAD1] RIGHT, [HEAD2] RIGHT, q1" if step <= self.stop else at_end
        return f"EQUAL, q1,  {heads(self.left, self.right, 2 * step - 2)} [OUTPUT]True\nCMD {command}\n"

    def last_line(self) -> str:
        return f"EQUAL, qH,  {heads(self.left, self.right, 2 * self.stop)} {self.result}"


class Reflection(Problem):
    """REFLECTION: the nines' complement, then its leading zeros stripped one by one."""

    task, name = "reflection", "REFLECTION"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.n, self.result = len(a), tape(self.x - self.y)
        self.n_steps = 2 * self.n + 3 - (self.x > self.y) * len(self.result) // 2
        self.padded = self.result + "|0" * (self.n - len(self.result) // 2)

    def entry(self, step: int) -> str:
        n, i = self.n, 2 * step - 2
        state, output = "q1" if step <= n + 1 else "q2", self.padded[:i]
        if step <= n:
            move = "[HEAD2] RIGHT, " if i < len(self.right) else ""
            command = f"[HEAD1] RIGHT, {move}[OUTPUT] {self.padded[i + 1]}, [OUTPUT] RIGHT, q1"
        else:
            output = self.padded[: 2 * (n - max(step - n - 2, 0))] or "|"
            command = "q2" if step == n + 1 else "[OUTPUT] LEFT, q2"
            command = "[OUTPUT], qH" if step == self.n_steps - 1 else command
        return f"REFLECTION, {state},  {heads(self.left, self.right, i)} {output}[OUTPUT]\nCMD {command}\n"


class LeftMask(Problem):
    """LEFT_MASK: a copy without the top digit, then its leading zeros stripped one by one."""

    task, name = "left_mask", "LEFT_MASK"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.n, kept = len(a), a[1:].lstrip("0")
        self.n_steps, self.result = 2 * self.n + 2 - len(kept), written(kept) or "0"

    def entry(self, step: int) -> str:
        x, n, i = self.left, self.n, 2 * step - 2
        state, output = ("q1", x[:i]) if step <= n + 1 else ("q2", x[: 2 * (2 * n + 1 - step)])
        if step <= n:
            command = f"[HEAD] RIGHT, [OUTPUT] {x[i + 1]}, [OUTPUT] RIGHT, q1"
        elif step == n + 1:
            command = "[OUTPUT] LEFT, [OUTPUT] 0, q2"
        else:
            command = "qH" if step == self.n_steps - 1 else "[OUTPUT] LEFT, q2"
        return f"LEFT_MASK, {state},  {x[:i]}[HEAD]{x[i:]} {output}[OUTPUT]\nCMD {command}\n"


# State and registers; of the machine called the name, the state after it, its tapes and what it writes
Call = tuple[str, str, str, str, str, str, int | str]


class Composer(Problem):
    """A machine that calls others; ``call`` says what is done in the entry before a transition but the first."""

    value: int
    first: str  # what follows the tapes in the first state line, and its command
    last_count: int | None = None

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.line = f"[HEAD1]{self.left} [HEAD2]{self.right} "

    @property
    def result(self) -> str:  # type: ignore[override]
        return tape(self.value)

    def call(self, step: int) -> Call:
        raise NotImplementedError

    def prompt(self, step: int, dialect: str) -> str:
        if step == 0:
            return f"{self.name}, q0, {self.line}{self.first}\n"
        state, registers, name, after, x, y, value = self.call(step)
        result, slips = tape(value) if type(value) is int else str(value), dialect == "published"
        if slips and name == "LEFT_MASK":
            result = x[:-2]  # all digits below the top one
        if slips and name == "LESS_THAN":
            x = x[::-2].replace("", "|")[:-1]  # the count in reading order
        end = last_line(name, x, y, result)
        if slips and self.task == "sub":
            end = end.replace("[C]1", "[C]0")
        return f"{self.name}, {state}, {self.line}{registers}\nCMD [CALL] {name}, {after}\n{end}\n{HALT}\n"

    def completion(self, step: int, dialect: str) -> str:
        if step == self.n_steps - 1:
            count = "" if self.last_count is None else f"[COUNT]{tape(self.last_count)} "
            return f"{self.name}, qH, {self.line}{count}{self.result}\n{HALT}"
        state, registers, name, after, x, y, _ = self.call(step + 1)
        lines = first_lines(name, x, y)
        return f"{self.name}, {state}, {self.line}{registers}\nCMD [CALL] {name}, {after}\n{lines}"


class Sub(Composer):
    """SUB: complement, two additions, and the top digit off."""

    task, name, sign, n_steps = "sub", "SUB", "-", 5
    calls: ClassVar = {"q1": "reflection", "q2": "add", "q3": "add", "q4": "left_mask"}
    first = "\nCMD q1"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.value = self.x - self.y

    def call(self, step: int) -> Call:
        return self.called[step - 1]

    @cached_property
    def called(self) -> tuple[Call, ...]:  # in turn
        nines = int(10 ** len(self.a)) - 1
        rest, total, above = nines - self.y, self.x + nines - self.y, self.x + nines - self.y + 1  # 10^n + a - b
        return (
            ("q1", "", "REFLECTION", "q2", tape(nines), self.right, rest),
            ("q2", "", "ADD", "q3", self.left, tape(rest), total),
            ("q3", "", "ADD", "q4", tape(total), "|1", above),
            ("q4", "", "LEFT_MASK", "qH", tape(above), "", self.value or "0"),
        )


class Mul(Composer):
    """MUL: repeated addition; at the k-th visit of q1 the count is k and the output k * a."""

    task, name, sign = "mul", "MUL", "*"
    calls: ClassVar = {"q1": "less_than", "q2": "add", "q3": "add"}

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.value, self.last_count, self.n_steps = self.x * self.y, self.y, 3 * self.y - 1
        self.first = f"[COUNT] [OUTPUT]\nCMD [COUNT] 1, [OUTPUT]{self.left}, q1"

    def call(self, step: int) -> Call:
        k, phase = divmod(step + 2, 3)
        count, output = tape(k), tape(k * self.x if phase < 2 else (k + 1) * self.x)
        registers = f"[COUNT]{count} [OUTPUT]{output}"
        if phase == 0:
            return "q1", registers, "LESS_THAN", "q2", count, self.right, k < self.y
        if phase == 1:
            return "q2", registers, "ADD", "q3", self.left, output, (k + 1) * self.x
        return "q3", registers, "ADD", "q1", count, "|1", k + 1


class Div(Composer):
    """DIV: counts the divisor up past the dividend; at the k-th visit of q1 output is k, count (k + 1) * b."""

    task, name, sign = "div", "DIV", "//"
    calls: ClassVar = {"q1": "greater_than", "q2": "add", "q3": "add"}

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.value = self.x // self.y
        self.last_count, self.n_steps = (self.value + 1) * self.y, 3 * self.value + 2
        self.first = f"[COUNT] [OUTPUT]\nCMD [COUNT]{self.right}, [OUTPUT] 0, q1"

    def call(self, step: int) -> Call:
        k, phase = divmod(step - 1, 3)
        count, output = tape((k + 1) * self.y), tape(k if phase < 2 else k + 1)
        registers = f"[COUNT]{count} [OUTPUT]{output}"
        if phase == 0:
            return "q1", registers, "GREATER_THAN", "q2", count, self.left, k >= self.value
        if phase == 1:
            return "q2", registers, "ADD", "q3", output, "|1", k + 1
        return "q3", registers, "ADD", "q1", self.right, count, (k + 2) * self.y


PROBLEMS = {kind.task: kind for kind in (Add, Equal, GreaterThan, LessThan, Reflection, LeftMask, Sub, Mul, Div)}


def problem(task: str, a: str, b: str | None) -> Problem | str:
    """Return the problem, or what is wrong with its operands."""
    return operand_error(task, a, b) or PROBLEMS[task](a, b or "")


def operand_error(task: str, a: str, b: str | None) -> str | None:
    """Return what is wrong with the operands of a problem, None where nothing is."""
    for name, text in (("a", a), ("b", b)) if b is not None or task != "left_mask" else (("a", a),):
        if not isinstance(text, str) or not (text.isascii() and text.isdigit()):
            return f"operand {name} must be a decimal string, found {quoted(text)}"
        if text[0] == "0" and text != "0":
            return f"operand {name} has leading zeros: {quoted(text)}"
        if len(text) > MAX_DIGITS:
            return f"operand {name} has {len(text):,} digits; at most {MAX_DIGITS:,} can be checked"
    if task == "sub" and (len(a), a) < (len(b or ""), b or ""):
        needs = "a >= b"
    elif task in ("mul", "div") and b == "0":
        needs = "b >= 1"
    elif task == "left_mask" and b:
        needs = "one operand"
    elif task == "reflection" and (a.strip("9") or len(b or "") > len(a)):
        needs = "an a of nines only" if a.strip("9") else "b <= a"
    else:
        return None
    return f"{task} needs {needs}, found {quoted(a)}, {quoted(b)}"
