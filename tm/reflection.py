"""Reflection, the nines' complement: 999 - 98 = 901, digit by digit, then high zeros are taken back.

    REFLECTION, q1,  |9[HEAD1]|9|9 |8[HEAD2]|9 |1[OUTPUT]
    CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] 0, [OUTPUT] RIGHT, q1

q1 writes 9 minus each digit of b (9 past its end), q2 moves back over high zeros. A helper of ``sub``.
"""

from collections.abc import Iterator

from .basic import BasicMachine, View
from .classes import StepRule, Variant
from .instructions import ACTIONS, LAST_COMMAND, basic

# The published law is two free problems and one with leading nines; of the free ones a ninth begins with 9 too.
VARIANTS = Variant("plain", 16, "complement"), Variant("leading_nines", 11, "leading_nines")
# The copy's steps, and those that take zeros back: where the result has no high zeros the second range is empty.
COPY, BACK = (("first", 1), ("len_a", -1), 4), (("len_a", 2), ("end", -2), 3)


class Reflection(BasicMachine):
    """a - b where a is all nines."""

    name = "reflection"
    example = ("999", "98")
    stress = "complement"
    kept_steps = StepRule(10, (("first", 0), ("end", -1), ("len_a", 0), ("len_a", 1)), (COPY, BACK))
    states = {
        "q0": "REFLECTION, q0, [HEAD1] {a}[HEAD2] {b} [OUTPUT]",
        "q1": "REFLECTION, q1,  {a_left}[HEAD1]{a_right} {b_left}[HEAD2]{b_right} {out}[OUTPUT]",
        "q2": "REFLECTION, q2,  {a}[HEAD1] {b}[HEAD2] {out}[OUTPUT]",
        "qH": "REFLECTION, qH,  {a}[HEAD1] {b}[HEAD2] {out}",
    }
    empty = {"q2": "|", "qH": "|0"}

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, q1"
        if view.state == "q2":
            return "CMD [OUTPUT] LEFT, q2" if view.last == "0" else "CMD [OUTPUT], qH"
        if not view.read(0):
            return "CMD q2"
        digit = view.read(1)
        move = "[HEAD2] RIGHT, " if digit else ""
        return f"CMD [HEAD1] RIGHT, {move}[OUTPUT] {9 - int(digit or 0)}, [OUTPUT] RIGHT, q1"

    def domain_error(self, a: int, b: int) -> str | None:
        if set(str(a)) != {"9"}:
            return "reflection needs an a made of nines only: it computes the nines' complement of b"
        return "reflection needs b <= a" if b > a else None

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 2 * len_a + 3

    def classes(self, shortest: int, longest: int) -> Iterator[tuple[int, int]]:
        return ((i, j) for i, j in super().classes(shortest, longest) if j <= i)

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        return 3 * num if len_a == len_b else num

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        return VARIANTS if len_a == len_b else VARIANTS[:1]


Reflection.shown_step = (999, 98, 3)
Reflection.instruction = basic(
    "REFLECTION",
    "subtracts operand 2 from operand 1, where operand 1 is written with nines only and is not the smaller one: each"
    " digit d becomes 9 - d",
    tapes="operand 1 with [HEAD1] in it, operand 2 with [HEAD2] in it, and the output, which stands to the left of"
    " [OUTPUT]",
    reads=". A head reads the digit on its right; behind the last digit of operand 2 it reads 0.",
    states="q1 subtract one pair of digits, q2 drop leading zeros of the result",
    result="the result",
    actions=f"CMD{ACTIONS} [HEAD1] RIGHT and [HEAD2] RIGHT move a head by one digit; [OUTPUT] d writes d; [OUTPUT]"
    " RIGHT moves on to the next free place; [OUTPUT] LEFT goes back by one place and drops the digit there; [OUTPUT]"
    " alone closes the output.",
    rules="q0 puts both heads on the units. In q1 write the difference of the two digits and move the heads that still"
    " have a digit; when [HEAD1] is at the end, go to q2. In q2 step left while the last digit written is 0, then close"
    f" the output and halt. If nothing but | is left, the result is |0. {LAST_COMMAND}",
)
