"""What greater_than and less_than share: the last pair of digits that differs decides, then the lengths.

GREATER_THAN, q1,  |7[HEAD1]|2 |1[HEAD2]|3 [OUTPUT]True
CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np

from .basic import BasicBatch, BasicMachine, Configuration, Said
from .batch import Batch
from .classes import EQUAL, GREATER, LESS, Variant, halves
from .columns import I64, U8, Bool, Operands, widen
from .machine import Dialect
from .render import Part, left, pick_flag, right, tape

COMMANDS = {
    "start": "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1",
    "move": "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, {write}q1",
    "close": "CMD {decided}[OUTPUT], qH",
}


MORE, FEWER = Variant("greater", 1, GREATER), Variant("less", 1, LESS)
# What an odd count leaves over goes to greater at even lengths and to less at odd ones.
ONLY_MORE, ONLY_FEWER = (MORE,), (FEWER,)
VARIANTS = (halves(EQUAL, MORE, FEWER), halves(EQUAL, FEWER, MORE))


def state_lines(title: str) -> dict[str, str]:
    """Return the state lines of a comparison of this name."""
    tapes = "{a_left}[HEAD1]{a_right} {b_left}[HEAD2]{b_right}"
    return {
        "q0": f"{title}, q0, [HEAD1] {{a}}[HEAD2] {{b}} [OUTPUT]",
        "q1": f"{title}, q1,  {tapes} [OUTPUT]{{flag}}",
        "qH": f"{title}, qH,  {tapes} {{flag}}",
    }


class Comparison(BasicMachine):
    """A machine that compares two numbers; ``holds`` is the relation."""

    commands = COMMANDS

    @staticmethod
    @abstractmethod
    def holds(x: int, y: int) -> bool:
        """Tell whether the relation holds."""

    def decide(self, now: Configuration) -> Said:
        if now.state == "q0":
            return "start", {}
        x, y = now.read(0), now.read(1)
        if x and y:
            return "move", {"write": "" if x == y else f"[OUTPUT] {self.holds(int(x), int(y))}, "}
        return "close", {"decided": "" if x == y else f"[OUTPUT] {self.holds(len(x), len(y))}, "}

    def at(self, a: int, b: int, i: int) -> Configuration:
        now = self.start(a, b)
        if i == 0:
            return now
        shortest = min(len(tape) for tape in now.tapes)
        k = min(i - 1, shortest)
        if i == shortest + 2:
            return Configuration("qH", now.tapes, (k, k), flag=str(self.holds(a, b)))
        return Configuration("q1", now.tapes, (k, k), flag=str(self.holds(a % 10**k, b % 10**k)))

    def answer(self, a: int, b: int) -> bool:
        return self.holds(a, b)

    def num_steps(self, a: int, b: int) -> int:
        return self.max_num_steps(len(str(a)), len(str(b)))

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return min(len_a, len_b) + 2

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        return 10 * num if len_a <= 5 and len_b <= 5 else num

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        if len_a == len_b:
            return VARIANTS[len_a % 2]
        return ONLY_MORE if len_a > len_b else ONLY_FEWER

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return ComparisonBatch(self, operands, dialect)


class ComparisonBatch(BasicBatch):
    """Columns of comparisons: the relation of the k low digits, for every k."""

    machine: Comparison

    def count_steps(self) -> I64:
        self.a, self.b = self.operands.a, self.operands.second
        self.shortest = np.minimum(self.a.length, self.b.length)
        width = int(self.shortest.max(initial=0))
        x, y = widen(self.a.planes, width), widen(self.b.planes, width)
        greater = self.machine.holds(1, 0)
        self.flags = np.zeros((width + 1, len(self.a)), np.bool_)
        for k in range(width):
            np.copyto(self.flags[k + 1], x[k] > y[k] if greater else x[k] < y[k])
            np.copyto(self.flags[k + 1], self.flags[k], where=x[k] == y[k])
        longer = self.a.length > self.b.length if greater else self.a.length < self.b.length
        same = self.a.length == self.b.length
        self.result = np.where(same, self.flags[self.shortest, self.all], longer)
        return self.shortest + 2

    def phases(self, e: I64, i: I64) -> Iterator[tuple[Bool, str, str | None]]:
        shortest = self.shortest[e]
        yield i == 0, "q0", "start"
        yield (i > 0) & (i <= shortest), "q1", "move"
        yield i == shortest + 1, "q1", "close"
        yield i == shortest + 2, "qH", None

    def parts(self, state: str, e: I64, i: I64) -> Mapping[str, Part]:
        if state == "q0":
            return {"a": tape(self.operands.a, e), "b": tape(self.operands.second, e)}
        k = np.minimum(i - 1, self.shortest[e])
        flag = self.result[e] if state == "qH" else self.flags[k, e]
        return {
            "a_left": left(self.a, e, k),
            "a_right": right(self.a, e, k),
            "b_left": left(self.b, e, k),
            "b_right": right(self.b, e, k),
            "flag": pick_flag(flag),
            "write": self._written(self.a.digit(e, k), self.b.digit(e, k)),
            "decided": self._written(self.a.length[e], self.b.length[e]),
        }

    def _written(self, x: U8 | I64, y: U8 | I64) -> Part:
        """Return the write command for the relation of x and y, nothing where they are the same."""
        holds = x > y if self.machine.holds(1, 0) else x < y
        part = pick_flag(holds, "[OUTPUT] True, ", "[OUTPUT] False, ")
        return type(part)((*part.strings, ""), np.where(x == y, 2, part.index))

    def answer(self) -> Part:
        self.num_steps  # noqa: B018  (computes the result)
        return pick_flag(self.result)
