"""What greater_than and less_than share: the last pair of digits that differs decides, then the lengths.

GREATER_THAN, q1,  |7[HEAD1]|2 |1[HEAD2]|3 [OUTPUT]True
CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1
"""

from abc import abstractmethod

from .basic import BasicMachine, View
from .classes import Variant
from .instructions import ACTIONS, LAST_COMMAND, aligner, basic

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


def comparing(title: str, whether: str, rules: str) -> str:
    """Return the instruction of a comparison."""
    return basic(
        title,
        f"tells whether {whether}",
        tapes="operand 1 with [HEAD1] in it, operand 2 with [HEAD2] in it, and the answer so far after [OUTPUT]",
        reads=". A head reads the digit on its right; behind the last digit there is none left.",
        states="q1 compare one pair of digits",
        result="True or False",
        actions=f"CMD{ACTIONS} [HEAD1] RIGHT and [HEAD2] RIGHT move a head by one digit; [OUTPUT] True and [OUTPUT]"
        " False write the answer; [OUTPUT] alone closes the output, and its token disappears.",
        rules=f"{rules} {LAST_COMMAND}",
    )


def relation(title: str, than: str, length: str) -> str:
    """Return the instruction of a comparison by size."""
    return comparing(
        title,
        f"operand 1 is {than} than operand 2 (non-negative integers)",
        rules="q0 puts both heads on the units and writes False. In q1, while both operands have a digit, move both"
        f" heads; if the digits differ, also write whether the first is {than}, as a higher place outweighs the lower"
        f" ones. When one operand has ended, the {length} one is {than}, so write that answer and halt; when both have"
        " ended, halt with the answer held.",
    )


def comparing_both_ways(title: str, relation: str, sign: str, first: str) -> str:
    """Return the aligner's instruction of a comparison."""
    return aligner(
        title,
        f"questions as people write them (is a {relation} b?) and the Turing machine",
        raw=f"the two numbers with {sign} between them and = at the end",
        registers="the empty [OUTPUT]",
        first=f"moves both heads onto the units, writes {first} and goes to state q1",
        halted="each head where it stopped inside or behind its operand, True or False",
        write="the question with its answer; a head says nothing about the number, so leave it out",
    )
