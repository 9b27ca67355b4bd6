"""Every entry of every run as a direct function of the operands and the step, with Python integers.

The second, independent account of what the rows must hold: nothing is executed here. ``problem(task, a, b)``
gives an object with ``n_steps``, ``prompt(step, dialect)``, ``initial``, ``halting`` and ``answer``.
"""

from functools import cached_property

from .grammar import HALT

MAX_DIGITS = 20_000
_CHUNK = 4_000  # Python refuses to convert more than 4,300 digits at once
_LIMIT = 10**_CHUNK

SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "//",
    "greater_than": ">",
    "less_than": "<",
    "equal": "==",
}
# mul's q1 with count k is step 3k-2, div's q1 with output k is step 3k+1, and so on
_AFTER = {"mul": {"q0": 0, "q1": -2, "q2": -1, "q3": 0}, "div": {"q0": 0, "q1": 1, "q2": 2, "q3": 0}}
_ADD_FIRST = "CMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1"
_FALSE_FIRST = "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1"
_MOVE_BOTH = "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, "


def number(digits: str) -> int:
    """Return the value of a decimal string of any length."""
    if len(digits) <= _CHUNK:
        return int(digits)
    low = len(digits) // 2
    return number(digits[:-low]) * int(10**low) + number(digits[-low:])


def decimal(value: int) -> str:
    """Return a non-negative integer of any size in decimal."""
    if value < _LIMIT:
        return str(value)
    half = (value.bit_length() * 30103 // 100_000) // 2
    high, low = divmod(value, 10**half)
    return decimal(high) + decimal(low).zfill(half)


def written(digits: str) -> str:
    """Return a decimal string as it stands on a tape: ``120`` -> ``|0|2|1``; an empty one gives nothing."""
    return digits[::-1].replace("", "|")[:-1]


def tape(value: int) -> str:
    """Return a non-negative integer as it stands on a tape."""
    return (str(value) if value < _LIMIT else decimal(value))[::-1].replace("", "|")[:-1]


class Problem:
    """A task and its operands. Subclasses give the entries; all texts are whole prompts or completions."""

    task = ""
    n_steps = 0

    def __init__(self, a: str, b: str | None) -> None:
        self.a, self.b = a, b or ""
        self.x, self.y = number(a), number(b) if b else 0
        self.left, self.right = written(a), written(self.b)

    def prompt(self, step: int, dialect: str) -> str:
        """Return the entry that transition ``step`` starts from."""
        raise NotImplementedError

    @cached_property
    def initial(self) -> str:
        """The first prompt; it is the same in both dialects."""
        return self.prompt(0, "consistent")

    @property
    def halting(self) -> str:
        """The last completion."""
        raise NotImplementedError

    @property
    def answer(self) -> str:
        """The bare answer of the raw text."""
        raise NotImplementedError

    @property
    def question(self) -> str:
        """The raw text, ``12+9=``."""
        return f"{self.a}{SIGNS[self.task]}{self.b}="

    @staticmethod
    def step_of(task: str, state: str, counted: str) -> int:
        """Return the step of a mul (div) entry from its state and what is written as count (output)."""
        if len(counted) > 6 * MAX_DIGITS:
            return -1
        k = number(counted[::-2])
        if state not in _AFTER[task]:
            return -1
        return 0 if state == "q0" else 3 * k + _AFTER[task][state]


# ----------------------------------------------------------------------------------------------------------
# Halting lines of the basic machines, also where a composer quotes them


def add_halt(x: str, y: str, total: str, carry: str | None = None) -> str:
    """Halting line of ADD on three tapes; ``carry`` overrides the real one."""
    real = "1" if len(total) > len(x) and len(total) > len(y) else "0"
    return f"ADD, qH,  {x}[HEAD1] {y}[HEAD2] [C]{carry or real} {total}"


def order_halt(name: str, x: str, y: str, verdict: bool) -> str:
    """Halting line of GREATER_THAN or LESS_THAN on two tapes."""
    m = min(len(x), len(y))
    return f"{name}, qH,  {x[:m]}[HEAD1]{x[m:]} {y[:m]}[HEAD2]{y[m:]} {verdict}"


# ----------------------------------------------------------------------------------------------------------
# Basic machines


class Add(Problem):
    """ADD: entry k+1 has read k digits."""

    task = "add"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.answer_text = decimal(self.x + self.y)
        self.total = written(self.answer_text)
        self.n_steps = max(len(a), len(self.b)) + 2

    def prompt(self, step: int, dialect: str) -> str:
        """See ``Problem.prompt``."""
        x, y, total, i = self.left, self.right, self.total, 2 * step - 2
        if step == 0:
            return f"ADD, q0, [HEAD1] {x}[HEAD2] {y} [C] [OUTPUT]\n{_ADD_FIRST}\n"
        if step == self.n_steps - 1:
            carry = "1" if len(total) > i else "0"
            return (
                f"ADD, q1,  {x}[HEAD1] {y}[HEAD2] [C]{carry} {total[:i]}[OUTPUT]\n"
                f"CMD: [OUTPUT] {carry}, [OUTPUT], [C], qH\n"
            )
        digit1, digit2, unit = x[i + 1 : i + 2], y[i + 1 : i + 2], total[i + 1]
        both = int(digit1 or 0) + int(digit2 or 0)
        held = (int(unit) - both) % 10  # the carry in is what the unit of the sum has beyond the two digits
        moves = ("[HEAD1] RIGHT, " if digit1 else "") + ("[HEAD2] RIGHT, " if digit2 else "")
        return (
            f"ADD, q1,  {x[:i]}[HEAD1]{x[i:]} {y[:i]}[HEAD2]{y[i:]} [C]{held} {total[:i]}[OUTPUT]\n"
            f"CMD: [C] {(both + held) // 10}, [OUTPUT] {unit}, [OUTPUT] RIGHT, {moves}q1\n"
        )

    @property
    def halting(self) -> str:
        """See ``Problem.halting``."""
        return f"{add_halt(self.left, self.right, self.total)}\n{HALT}\n"

    @property
    def answer(self) -> str:
        """See ``Problem.answer``."""
        return self.answer_text


class _Comparison(Problem):
    """EQUAL, GREATER_THAN and LESS_THAN: two heads that move together."""

    name = ""
    stop = 0  # digits read before the machine stops
    verdict = False

    def _line(self, state: str, i: int, end: str) -> str:
        x, y = self.left, self.right
        return f"{self.name}, {state},  {x[:i]}[HEAD1]{x[i:]} {y[:i]}[HEAD2]{y[i:]} {end}\n"

    @property
    def halting(self) -> str:
        """See ``Problem.halting``."""
        return f"{self._line('qH', 2 * self.stop, str(self.verdict))}{HALT}\n"

    @property
    def answer(self) -> str:
        """See ``Problem.answer``."""
        return str(self.verdict)


class Equal(_Comparison):
    """EQUAL stops at the first position where the operands differ."""

    task, name = "equal", "EQUAL"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        pairs = zip(reversed(self.a), reversed(self.b), strict=False)
        self.stop = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(self.a), len(self.b)))
        self.n_steps, self.verdict = self.stop + 2, self.x == self.y

    def prompt(self, step: int, dialect: str) -> str:
        """See ``Problem.prompt``."""
        if step == 0:
            first = "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] True, q1"
            return f"EQUAL, q0, [HEAD1] {self.left}[HEAD2] {self.right} [OUTPUT]\n{first}\n"
        command = _MOVE_BOTH + "q1"
        if step > self.stop:
            command = "CMD [OUTPUT], qH" if self.verdict else "CMD [OUTPUT] False, [OUTPUT], qH"
        return f"{self._line('q1', 2 * step - 2, '[OUTPUT]True')}{command}\n"


class Order(_Comparison):
    """GREATER_THAN and LESS_THAN read as many digits as the shorter operand has."""

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.stop = min(len(self.a), len(self.b))
        self.n_steps, self.verdict = self.stop + 2, self.related(self.x, self.y)

    def related(self, x: int | str, y: int | str) -> bool:
        """Whether x stands in the machine's relation to y; strings must be of equal length."""
        greater, less = (
            (x > y, x < y) if isinstance(x, int) and isinstance(y, int) else (str(x) > str(y), str(x) < str(y))
        )
        return greater if self.task == "greater_than" else less

    def prompt(self, step: int, dialect: str) -> str:
        """See ``Problem.prompt``."""
        if step == 0:
            return f"{self.name}, q0, [HEAD1] {self.left}[HEAD2] {self.right} [OUTPUT]\n{_FALSE_FIRST}\n"
        k = step - 1
        held = k > 0 and self.related(self.a[-k:], self.b[-k:])
        if k == self.stop:
            longer, other = len(self.a), len(self.b)
            says = "" if longer == other else f"[OUTPUT] {self.related(longer, other)}, "
            command = f"CMD {says}[OUTPUT], qH"
        else:
            x, y = self.a[-step], self.b[-step]
            says = "" if x == y else f"[OUTPUT] {self.related(x, y)}, "
            command = f"{_MOVE_BOTH}{says}q1"
        return f"{self._line('q1', 2 * k, f'[OUTPUT]{held}')}{command}\n"


class GreaterThan(Order):
    """GREATER_THAN."""

    task, name = "greater_than", "GREATER_THAN"


class LessThan(Order):
    """LESS_THAN."""

    task, name = "less_than", "LESS_THAN"


class Reflection(Problem):
    """REFLECTION: the nines' complement, then its leading zeros stripped one by one."""

    task = "reflection"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.n = len(a)
        self.padded = tape(self.x - self.y)
        size = 0 if self.x == self.y else len(self.padded) // 2
        self.result, self.n_steps = self.padded, self.n + 3 + self.n - size
        self.padded += "|0" * (self.n - len(self.padded) // 2)

    def prompt(self, step: int, dialect: str) -> str:
        """See ``Problem.prompt``."""
        x, y, n, i = self.left, self.right, self.n, 2 * step - 2
        if step == 0:
            return f"REFLECTION, q0, [HEAD1] {x}[HEAD2] {y} [OUTPUT]\nCMD [HEAD1] RIGHT, [HEAD2] RIGHT, q1\n"
        if step <= n:
            move = "[HEAD2] RIGHT, " if i < len(y) else ""
            return (
                f"REFLECTION, q1,  {x[:i]}[HEAD1]{x[i:]} {y[:i]}[HEAD2]{y[i:]} {self.padded[:i]}[OUTPUT]\n"
                f"CMD [HEAD1] RIGHT, {move}[OUTPUT] {self.padded[i + 1]}, [OUTPUT] RIGHT, q1\n"
            )
        left = 2 * (n - max(step - n - 2, 0))
        state, command = ("q1", "q2") if step == n + 1 else ("q2", "[OUTPUT] LEFT, q2")
        command = "[OUTPUT], qH" if step == self.n_steps - 1 else command
        output = self.padded[:left] or "|"
        return f"REFLECTION, {state},  {x}[HEAD1] {y}[HEAD2] {output}[OUTPUT]\nCMD {command}\n"

    @property
    def halting(self) -> str:
        """See ``Problem.halting``."""
        return f"REFLECTION, qH,  {self.left}[HEAD1] {self.right}[HEAD2] {self.result}\n{HALT}\n"


class LeftMask(Problem):
    """LEFT_MASK: a copy without the top digit, then its leading zeros stripped one by one."""

    task = "left_mask"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.n = len(a)
        self.kept = a[1:].lstrip("0")
        self.n_steps = self.n + 3 + (self.n - 1 - len(self.kept))

    def prompt(self, step: int, dialect: str) -> str:
        """See ``Problem.prompt``."""
        x, n, i = self.left, self.n, 2 * step - 2
        if step == 0:
            return f"LEFT_MASK, q0, [HEAD] {x} [OUTPUT]\nCMD [HEAD] RIGHT, q1\n"
        if step <= n:
            return (
                f"LEFT_MASK, q1,  {x[:i]}[HEAD]{x[i:]} {x[:i]}[OUTPUT]\n"
                f"CMD [HEAD] RIGHT, [OUTPUT] {x[i + 1]}, [OUTPUT] RIGHT, q1\n"
            )
        if step == n + 1:
            return f"LEFT_MASK, q1,  {x}[HEAD] {x}[OUTPUT]\nCMD [OUTPUT] LEFT, [OUTPUT] 0, q2\n"
        command = "qH" if step == self.n_steps - 1 else "[OUTPUT] LEFT, q2"
        return f"LEFT_MASK, q2,  {x}[HEAD] {x[: 2 * (2 * n + 1 - step)]}[OUTPUT]\nCMD {command}\n"

    @property
    def halting(self) -> str:
        """See ``Problem.halting``."""
        return f"LEFT_MASK, qH,  {self.left}[HEAD] {written(self.kept) or '0'}\n{HALT}\n"
