"""What greater_than and less_than share: the last pair of digits that differs decides, then the lengths.

GREATER_THAN, q1,  |7[HEAD1]|2 |1[HEAD2]|3 [OUTPUT]True
CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1
"""

from abc import abstractmethod

from .basic import BasicMachine, View
from .classes import Variant

EQUAL, MORE, FEWER = Variant("equal", 2, "equal"), Variant("greater", 1, "greater"), Variant("less", 1, "less")
# What an odd count leaves over goes to greater at even lengths and to less at odd ones.
VARIANTS = (EQUAL, MORE, FEWER), (EQUAL, FEWER, MORE)


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

    @staticmethod
    @abstractmethod
    def holds(x: int, y: int) -> bool:
        """Tell whether the relation holds."""

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1"
        x, y = view.symbols
        if x and y:
            write = "" if x == y else f"[OUTPUT] {self.holds(int(x), int(y))}, "
            return f"CMD [HEAD1] RIGHT, [HEAD2] RIGHT, {write}q1"
        decided = "" if x == y else f"[OUTPUT] {self.holds(len(x), len(y))}, "
        return f"CMD {decided}[OUTPUT], qH"

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return min(len_a, len_b) + 2

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        return 10 * num if len_a <= 5 and len_b <= 5 else num

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        if len_a == len_b:
            return VARIANTS[len_a % 2]
        return (MORE,) if len_a > len_b else (FEWER,)
