# tm/double.py
from caef_data.tm.basic import BasicMachine, Configuration

TAPE = "{a_left}[HEAD]{a_right} [C]{carry} {out}"


class Double(BasicMachine):
    """Twice a number, digit by digit with a carry: 47 -> 94."""

    name = "double"
    unary = True
    states = {
        "q0": "DOUBLE, q0, [HEAD] {a} [C] [OUTPUT]",
        "q1": f"DOUBLE, q1,  {TAPE}[OUTPUT]",
        "qH": f"DOUBLE, qH,  {TAPE}",
    }
    commands = {
        "start": "CMD [C] 0, [HEAD] RIGHT, q1",
        "write": "CMD [C] {over}, [OUTPUT] {digit}, [OUTPUT] RIGHT, [HEAD] RIGHT, q1",
        "close": "CMD [OUTPUT] {carry}, [OUTPUT], [C], qH",
    }

    def decide(self, now: Configuration) -> tuple[str, dict[str, str]]:
        if now.state == "q0":
            return "start", {}
        digit = now.read(0)
        if not digit:
            return "close", {"carry": now.carry}
        total = 2 * int(digit) + int(now.carry)
        return "write", {"over": str(total // 10), "digit": str(total % 10)}

    def answer(self, a: int, b: int) -> int:
        return 2 * a

    def num_steps(self, a: int, b: int) -> int:
        return self.max_num_steps(len(str(a)), 0)

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return len_a + 2
