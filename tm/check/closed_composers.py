"""The entries of SUB, MUL and DIV as direct functions of operands and step; ``problem`` finds any task."""

from ...errors import clip
from .closed import (
    MAX_DIGITS,
    Add,
    Equal,
    GreaterThan,
    LeftMask,
    LessThan,
    Problem,
    Reflection,
    add_halt,
    decimal,
    order_halt,
    tape,
    written,
)
from .grammar import HALT


class Sub(Problem):
    """SUB: complement, two additions, and the top digit off."""

    task, n_steps = "sub", 5

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.line = f"[HEAD1]{self.left} [HEAD2]{self.right} "
        self.answer_text = decimal(self.x - self.y)

    def prompt(self, step: int, dialect: str) -> str:
        """See ``Problem.prompt``."""
        if step == 0:
            return f"SUB, q0, {self.line}\nCMD q1\n"
        n, published = len(self.a), dialect == "published"
        if step == 4:
            call, after = "LEFT_MASK", "qH"
            # 10^n + a - b: the result padded to n digits, and a 1 on top
            padded = written(self.answer_text.zfill(n))
            shown = padded if published else "0" if self.x == self.y else written(self.answer_text)
            halt = f"LEFT_MASK, qH,  {padded}|1[HEAD] {shown}"
        else:
            rest = 10**n - 1 - self.y
            r, s = tape(rest), tape(self.x + rest)
            call, after = ("REFLECTION", "q2") if step == 1 else ("ADD", f"q{step + 1}")
            if step == 1:
                halt = f"REFLECTION, qH,  {'|9' * n}[HEAD1] {self.right}[HEAD2] {r}"
            elif step == 2:
                halt = add_halt(self.left, r, s, "0" if published else None)
            else:
                halt = add_halt(s, "|1", tape(self.x + rest + 1), "0" if published else None)
        return f"SUB, q{step}, {self.line}\nCMD [CALL] {call}, {after}\n{halt}\n{HALT}\n"

    @property
    def halting(self) -> str:
        """See ``Problem.halting``."""
        return f"SUB, qH, {self.line}{written(self.answer_text)}\n{HALT}"

    @property
    def answer(self) -> str:
        """See ``Problem.answer``."""
        return self.answer_text


class Mul(Problem):
    """MUL: repeated addition; at the k-th visit of q1 the count is k and the output k * a."""

    task = "mul"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.line = f"[HEAD1]{self.left} [HEAD2]{self.right} [COUNT]"
        self.n_steps = 3 * self.y - 1

    def prompt(self, step: int, dialect: str) -> str:
        """See ``Problem.prompt``."""
        if step == 0:
            return f"MUL, q0, {self.line} [OUTPUT]\nCMD [COUNT] 1, [OUTPUT]{self.left}, q1\n"
        k, phase = divmod(step + 2, 3)
        count = tape(k)
        if phase == 0:
            output, call = tape(k * self.x), "LESS_THAN, q2"
            # published: the count in reading order, the heads behind as many digits as it has
            said = count[::-2].replace("", "|")[:-1] if dialect == "published" else count
            halt = order_halt("LESS_THAN", said, self.right, k < self.y)
        elif phase == 1:
            output, call = tape(k * self.x), "ADD, q3"
            halt = add_halt(self.left, output, tape((k + 1) * self.x))
        else:
            output, call = tape((k + 1) * self.x), "ADD, q1"
            halt = add_halt(count, "|1", tape(k + 1))
        state = f"MUL, q{phase + 1}, {self.line}{count} [OUTPUT]{output}"
        return f"{state}\nCMD [CALL] {call}\n{halt}\n{HALT}\n"

    @property
    def halting(self) -> str:
        """See ``Problem.halting``."""
        return f"MUL, qH, {self.line}{self.right} {tape(self.x * self.y)}\n{HALT}"

    @property
    def answer(self) -> str:
        """See ``Problem.answer``."""
        return decimal(self.x * self.y)


class Div(Problem):
    """DIV: counts the divisor up past the dividend; at the k-th visit of q1 output is k, count (k+1) * b."""

    task = "div"

    def __init__(self, a: str, b: str | None) -> None:
        super().__init__(a, b)
        self.line = f"[HEAD1]{self.left} [HEAD2]{self.right} [COUNT]"
        self.quotient = self.x // self.y
        self.n_steps = 3 * self.quotient + 2

    def prompt(self, step: int, dialect: str) -> str:
        """See ``Problem.prompt``."""
        if step == 0:
            return f"DIV, q0, {self.line} [OUTPUT]\nCMD [COUNT]{self.right}, [OUTPUT] 0, q1\n"
        k, phase = divmod(step - 1, 3)
        bound = (k + 1) * self.y
        count, output = tape(bound), tape(k + 1 if phase == 2 else k)
        if phase == 0:
            call, halt = "GREATER_THAN, q2", order_halt("GREATER_THAN", count, self.left, bound > self.x)
        elif phase == 1:
            call, halt = "ADD, q3", add_halt(output, "|1", tape(k + 1))
        else:
            call, halt = "ADD, q1", add_halt(self.right, count, tape(bound + self.y))
        state = f"DIV, q{phase + 1}, {self.line}{count} [OUTPUT]{output}"
        return f"{state}\nCMD [CALL] {call}\n{halt}\n{HALT}\n"

    @property
    def halting(self) -> str:
        """See ``Problem.halting``."""
        return f"DIV, qH, {self.line}{tape((self.quotient + 1) * self.y)} {tape(self.quotient)}\n{HALT}"

    @property
    def answer(self) -> str:
        """See ``Problem.answer``."""
        return decimal(self.quotient)


PROBLEMS: dict[str, type[Problem]] = {
    kind.task: kind for kind in (Add, Equal, GreaterThan, LessThan, Reflection, LeftMask, Sub, Mul, Div)
}


def problem(task: str, a: str, b: str | None) -> Problem | str:
    """Return the problem, or what is wrong with its operands."""
    wrong = _operand("a", a)
    if wrong is None and (task != "left_mask" or b is not None):
        wrong = _operand("b", b)
    if wrong is None and task in _LAWFUL:
        wrong = _law(task, a, b or "")
    return PROBLEMS[task](a, b) if wrong is None else wrong


def _operand(name: str, text: str | None) -> str | None:
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()):
        return f"operand {name} must be a decimal string, found {clip(text)}"
    if text[0] == "0" and text != "0":
        return f"operand {name} has leading zeros: {clip(text)}"
    if len(text) > MAX_DIGITS:
        return f"operand {name} has {len(text):,} digits; at most {MAX_DIGITS:,} can be checked"
    return None


_LAWFUL = frozenset({"sub", "mul", "div", "reflection", "left_mask"})  # the others take any two operands


def _law(task: str, a: str, b: str) -> str | None:
    if task == "sub" and (len(a), a) < (len(b), b):
        return f"sub needs a >= b, found {clip(a)} - {clip(b)}"
    if task == "left_mask" and b:
        return f"left_mask has one operand, found b = {clip(b)}"
    if task in ("mul", "div") and b == "0":
        return f"{task} needs b >= 1"
    if task == "reflection":
        if a.strip("9"):
            return f"reflection needs an a of nines only, found {clip(a)}"
        if len(b) > len(a):
            return f"reflection needs b <= a, found {clip(a)}, {clip(b)}"
    return None
