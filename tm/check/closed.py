"""Every entry of every run of the six basic machines, as a direct function of operands and step.

The second, independent account of what rows must hold: nothing is executed here. An entry is a state line and a command
line; that of step k is the prompt of transition k, and the completion of the transition before.
"""

from typing import ClassVar

from .text import HALT, number, tape, written

# The first command of the machines, and what ends their first state line
_FIRST = {
    "ADD": "[C] [OUTPUT]\nCMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1",
    "EQUAL": "[OUTPUT]\nCMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] True, q1",
    "GREATER_THAN": "[OUTPUT]\nCMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1",
    "LESS_THAN": "[OUTPUT]\nCMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1",
    "REFLECTION": "[OUTPUT]\nCMD [HEAD1] RIGHT, [HEAD2] RIGHT, q1",
}


class Problem:
    """A task and its operands; all texts are whole prompts or completions.

    Attributes:
        task, name: of the machine, ``add`` and ``ADD``.
        sign: between the operands of the raw text; None where there is no such text.
        calls: for each state that calls a machine, the task called.
        n_steps: transitions of the run.
        result: what the last entry has written: a tape, True or False, or a bare 0.
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
        """Return the text that transition ``step`` starts from; of a basic machine also the last one."""
        raise NotImplementedError

    def completion(self, step: int, dialect: str) -> str:
        """Return the text that transition ``step`` gives."""
        return self.prompt(step + 1, dialect)

    @property
    def initial(self) -> str:
        """The first prompt; it is the same in both dialects."""
        return self.prompt(0, "consistent")

    @property
    def halting(self) -> str:
        """The last completion; it is the same in both dialects."""
        return self.completion(self.n_steps - 1, "consistent")

    @property
    def answer(self) -> str:
        """The bare answer of the raw text."""
        return self.result[::-2] if self.result[0] == "|" else self.result

    @property
    def question(self) -> str:
        """The raw text, ``12+9=``."""
        return f"{self.a}{self.sign}{self.b}="


# ----------------------------------------------------------------------------------------------------------
# First and last lines, also where a composer quotes them


def first_lines(name: str, x: str, y: str) -> str:
    """Return the state line and the command of a machine that starts on these tapes."""
    if name == "LEFT_MASK":
        return f"LEFT_MASK, q0, [HEAD] {x} [OUTPUT]\nCMD [HEAD] RIGHT, q1"
    return f"{name}, q0, [HEAD1] {x}[HEAD2] {y} {_FIRST[name]}"


def last_line(name: str, x: str, y: str, result: str) -> str:
    """Return the state line of a machine that has halted on these tapes."""
    if name == "ADD":
        carry = len(result) > len(x) and len(result) > len(y)
        return f"ADD, qH,  {x}[HEAD1] {y}[HEAD2] [C]{carry:d} {result}"
    if name == "LEFT_MASK":
        return f"LEFT_MASK, qH,  {x}[HEAD] {result}"
    if name == "REFLECTION":
        return f"REFLECTION, qH,  {x}[HEAD1] {y}[HEAD2] {result}"
    m = min(len(x), len(y))  # a comparison reads as many digits as the shorter tape has
    return f"{name}, qH,  {x[:m]}[HEAD1]{x[m:]} {y[:m]}[HEAD2]{y[m:]} {result}"


# ----------------------------------------------------------------------------------------------------------
# The basic machines


def _additions() -> dict[tuple[str, str, str], tuple[int, str]]:
    """Return the carry in and the command of each step of ADD, by the digits under the heads and that of the sum."""
    digits, steps = ("", *"0123456789"), {}
    for x in digits:
        for y in digits:
            moves = ("[HEAD1] RIGHT, " if x else "") + ("[HEAD2] RIGHT, " if y else "")
            for carry in (0, 1):
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

    def prompt(self, step: int, dialect: str) -> str:
        x, y, total, i = self.left, self.right, self.result, 2 * step - 2
        if step == 0:
            return first_lines("ADD", x, y) + "\n"
        if step < self.n_steps - 1:
            carry, command = self.steps[x[i + 1 : i + 2], y[i + 1 : i + 2], total[i + 1]]
            return (
                f"ADD, q1,  {x[:i]}[HEAD1]{x[i:]} {y[:i]}[HEAD2]{y[i:]} [C]{carry} {total[:i]}[OUTPUT]\n"
                f"CMD: {command}\n"
            )
        if step == self.n_steps:
            return f"{last_line(self.name, x, y, total)}\n{HALT}\n"
        carry = len(total) > i
        return (
            f"ADD, q1,  {x}[HEAD1] {y}[HEAD2] [C]{carry:d} {total[:i]}[OUTPUT]\n"
            f"CMD: [OUTPUT] {carry:d}, [OUTPUT], [C], qH\n"
        )


class Comparison(Problem):
    """Two heads that move together, and stop after ``stop`` digits."""

    stop: int

    def prompt(self, step: int, dialect: str) -> str:
        x, y, i = self.left, self.right, 2 * min(step - 1, self.stop)
        if step == 0:
            return first_lines(self.name, x, y) + "\n"
        if step == self.n_steps:
            return f"{self.name}, qH,  {x[:i]}[HEAD1]{x[i:]} {y[:i]}[HEAD2]{y[i:]} {self.result}\n{HALT}\n"
        held, command = self.told(step - 1)
        return f"{self.name}, q1,  {x[:i]}[HEAD1]{x[i:]} {y[:i]}[HEAD2]{y[i:]} [OUTPUT]{held}\nCMD {command}\n"

    def told(self, k: int) -> tuple[bool, str]:
        """Return what the output says after ``k`` digits, and the command."""
        raise NotImplementedError


class Equal(Comparison):
    """EQUAL stops at the first position where the operands differ."""

    task, name, sign = "equal", "EQUAL", "=="

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        pairs = zip(reversed(self.a), reversed(self.b), strict=False)
        self.stop = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(self.a), len(self.b)))
        self.n_steps, self.result = self.stop + 2, str(self.x == self.y)

    def told(self, k: int) -> tuple[bool, str]:
        if k < self.stop:
            return True, "[HEAD1] RIGHT, [HEAD2] RIGHT, q1"
        return True, "[OUTPUT], qH" if self.x == self.y else "[OUTPUT] False, [OUTPUT], qH"


class GreaterThan(Comparison):
    """GREATER_THAN reads as many digits as the shorter operand has; its output is right for those read so far."""

    task, name, sign = "greater_than", "GREATER_THAN", ">"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.stop = min(len(self.a), len(self.b))
        self.large, self.small = self.a, self.b  # the answer is whether these are what their names say
        self.n_steps, self.result = self.stop + 2, str(self.x > self.y)

    def told(self, k: int) -> tuple[bool, str]:
        large, small = self.large, self.small
        held = k > 0 and large[-k:] > small[-k:]
        if k < self.stop:
            x, y = large[-k - 1], small[-k - 1]
            if x == y:
                return held, "[HEAD1] RIGHT, [HEAD2] RIGHT, q1"
            return held, f"[HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] {x > y}, q1"
        says = "" if len(large) == len(small) else f"[OUTPUT] {len(large) > len(small)}, "
        return held, f"{says}[OUTPUT], qH"


class LessThan(GreaterThan):
    """LESS_THAN."""

    task, name, sign = "less_than", "LESS_THAN", "<"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.large, self.small, self.result = self.b, self.a, str(self.x < self.y)


class Reflection(Problem):
    """REFLECTION: the nines' complement, then its leading zeros stripped one by one."""

    task, name = "reflection", "REFLECTION"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.n, self.result = len(a), tape(self.x - self.y)
        size = 0 if self.x == self.y else len(self.result) // 2
        self.n_steps = self.n + 3 + self.n - size
        self.padded = self.result + "|0" * (self.n - len(self.result) // 2)

    def prompt(self, step: int, dialect: str) -> str:
        x, y, n, i = self.left, self.right, self.n, 2 * step - 2
        if step == 0:
            return first_lines("REFLECTION", x, y) + "\n"
        if step <= n:
            move = "[HEAD2] RIGHT, " if i < len(y) else ""
            return (
                f"REFLECTION, q1,  {x[:i]}[HEAD1]{x[i:]} {y[:i]}[HEAD2]{y[i:]} {self.padded[:i]}[OUTPUT]\n"
                f"CMD [HEAD1] RIGHT, {move}[OUTPUT] {self.padded[i + 1]}, [OUTPUT] RIGHT, q1\n"
            )
        if step == self.n_steps:
            return f"{last_line(self.name, x, y, self.result)}\n{HALT}\n"
        left = 2 * (n - max(step - n - 2, 0))
        state, command = ("q1", "q2") if step == n + 1 else ("q2", "[OUTPUT] LEFT, q2")
        command = "[OUTPUT], qH" if step == self.n_steps - 1 else command
        return f"REFLECTION, {state},  {x}[HEAD1] {y}[HEAD2] {self.padded[:left] or '|'}[OUTPUT]\nCMD {command}\n"


class LeftMask(Problem):
    """LEFT_MASK: a copy without the top digit, then its leading zeros stripped one by one."""

    task, name = "left_mask", "LEFT_MASK"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.n, kept = len(a), a[1:].lstrip("0")
        self.result = written(kept) or "0"
        self.n_steps = self.n + 3 + (self.n - 1 - len(kept))

    def prompt(self, step: int, dialect: str) -> str:
        x, n, i = self.left, self.n, 2 * step - 2
        if step == 0:
            return first_lines("LEFT_MASK", x, "") + "\n"
        if step <= n:
            return (
                f"LEFT_MASK, q1,  {x[:i]}[HEAD]{x[i:]} {x[:i]}[OUTPUT]\n"
                f"CMD [HEAD] RIGHT, [OUTPUT] {x[i + 1]}, [OUTPUT] RIGHT, q1\n"
            )
        if step == n + 1:
            return f"LEFT_MASK, q1,  {x}[HEAD] {x}[OUTPUT]\nCMD [OUTPUT] LEFT, [OUTPUT] 0, q2\n"
        if step == self.n_steps:
            return f"{last_line(self.name, x, '', self.result)}\n{HALT}\n"
        command = "qH" if step == self.n_steps - 1 else "[OUTPUT] LEFT, q2"
        return f"LEFT_MASK, q2,  {x}[HEAD] {x[: 2 * (2 * n + 1 - step)]}[OUTPUT]\nCMD {command}\n"
