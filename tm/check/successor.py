"""From a prompt's text to its completion's, fast: what ``execute`` and ``decide`` do, on strings.

``successor_of(task)(prompt)`` parses the prompt with one regular expression, runs its command on slices of
its tapes, decides the next command and gives the completion; an empty string where the prompt cannot be run.
It trusts the prompt's command and the halting line of a called machine: the caller compares prompts with
``closed``. The tables of commands are filled from the careful rules of ``execute``.
"""

import re
from collections.abc import Callable
from functools import cache, partial
from itertools import product

from .execute import decide
from .grammar import HALT, LAYOUTS, Entry, Tape

Successor = Callable[[str], str]

_DIGITS = ("", *"0123456789")
_SHAPES = {"carry": "([01])", "truth": "(True|False)"}


def _matcher(machine: str, state: str) -> Callable[[str], re.Match[str] | None]:
    """Compile a machine's layout; cheap character classes, as texts are compared exactly anyway."""
    pieces = re.split(r"<(\w+)>", f"{machine}, {state},{LAYOUTS[machine][state]}")
    pattern = "".join(_SHAPES.get(p, "([|0-9]*)") if i % 2 else re.escape(p) for i, p in enumerate(pieces))
    return re.compile(pattern + r"\nCMD:? ([^\n]*)\n").fullmatch


def _commands(machine: str, state: str, **held: str) -> dict[tuple[str, str], str]:
    """Tabulate the command lines that ``decide`` gives for every pair of symbols under two heads."""
    return {
        (one, two): decide(
            Entry(machine, state, (Tape("", one and "|" + one), Tape("", two and "|" + two)), **held)  # type: ignore[arg-type]
        ).command_line()
        for one, two in product(_DIGITS, _DIGITS)
    }


def _first(machine: str) -> str:
    return decide(Entry(machine, "q0", ())).command_line()


# ----------------------------------------------------------------------------------------------------------
# Basic machines


def _adder() -> Successor:
    start, running = _matcher("ADD", "q0"), _matcher("ADD", "q1")
    decided = [_commands("ADD", "q1", carry=carry) for carry in "01"]
    # command -> carry, text written, head 1 moves, head 2 moves; None: it halts
    effects: dict[str, tuple[int, str, str, bool, bool]] = {}
    for carry, unit, one, two in product("01", "0123456789", (True, False), (True, False)):
        moves = ("[HEAD1] RIGHT, " if one else "") + ("[HEAD2] RIGHT, " if two else "")
        effects[f"[C] {carry}, [OUTPUT] {unit}, [OUTPUT] RIGHT, {moves}q1"] = (
            int(carry),
            carry,
            "|" + unit,
            one,
            two,
        )
    last = {f"[OUTPUT] {carry}, [OUTPUT], [C], qH": "|1" if carry == "1" else "" for carry in "01"}

    def step(prompt: str) -> str:
        match = running(prompt)
        if match is None:
            match = start(prompt)
            if match is None:
                return ""
            x, y, _ = match.groups()
            command = decided[0][x[1:2], y[1:2]]
            return f"ADD, q1,  [HEAD1]{x} [HEAD2]{y} [C]0 [OUTPUT]\n{command}\n"
        left1, right1, left2, right2, carry, output, command = match.groups()
        effect = effects.get(command)
        if effect is None:
            if command not in last:
                return ""
            output += last[command]
            return f"ADD, qH,  {left1}[HEAD1]{right1} {left2}[HEAD2]{right2} [C]{carry} {output}\n{HALT}\n"
        held, carry, unit, one, two = effect
        if one:
            left1, right1 = left1 + right1[:2], right1[2:]
        if two:
            left2, right2 = left2 + right2[:2], right2[2:]
        return (
            f"ADD, q1,  {left1}[HEAD1]{right1} {left2}[HEAD2]{right2} [C]{carry} {output}{unit}[OUTPUT]\n"
            f"{decided[held][right1[1:2], right2[1:2]]}\n"
        )

    return step


def _comparer(machine: str) -> Successor:
    start, running = _matcher(machine, "q0"), _matcher(machine, "q1")
    decided, held = _commands(machine, "q1"), str(machine == "EQUAL")
    both = "[HEAD1] RIGHT, [HEAD2] RIGHT, "
    # command -> whether the heads move on, what is written ("": the output stays)
    effects = {both + "q1": (True, ""), "[OUTPUT], qH": (False, "")}
    for truth in ("True", "False"):
        effects[f"{both}[OUTPUT] {truth}, q1"] = (True, truth)
        effects[f"[OUTPUT] {truth}, [OUTPUT], qH"] = (False, truth)

    def step(prompt: str) -> str:
        match = running(prompt)
        if match is None:
            match = start(prompt)
            if match is None:
                return ""
            x, y, _ = match.groups()
            return f"{machine}, q1,  [HEAD1]{x} [HEAD2]{y} [OUTPUT]{held}\n{decided[x[1:2], y[1:2]]}\n"
        left1, right1, left2, right2, output, command = match.groups()
        effect = effects.get(command)
        if effect is None:
            return ""
        moves, truth = effect
        if not moves:
            return f"{machine}, qH,  {left1}[HEAD1]{right1} {left2}[HEAD2]{right2} {truth or output}\n{HALT}\n"
        left1, right1, left2, right2 = left1 + right1[:2], right1[2:], left2 + right2[:2], right2[2:]
        return (
            f"{machine}, q1,  {left1}[HEAD1]{right1} {left2}[HEAD2]{right2} [OUTPUT]{truth or output}\n"
            f"{decided[right1[1:2], right2[1:2]]}\n"
        )

    return step


def _by_state(machine: str, steps: dict[str, Successor]) -> Successor:
    at = len(machine) + 2

    def step(prompt: str) -> str:
        run = steps.get(prompt[at : at + 2])
        return run(prompt) if run is not None else ""

    return step


def _reflector() -> Successor:
    starting, running, stripping = (_matcher("REFLECTION", state) for state in ("q0", "q1", "q2"))
    decided = _commands("REFLECTION", "q1")
    effects = {
        f"[HEAD1] RIGHT, {move}[OUTPUT] {unit}, [OUTPUT] RIGHT, q1": ("|" + unit, bool(move))
        for unit, move in product("0123456789", ("[HEAD2] RIGHT, ", ""))
    }

    def start(prompt: str) -> str:
        match = starting(prompt)
        if match is None:
            return ""
        x, y, _ = match.groups()
        return f"REFLECTION, q1,  [HEAD1]{x} [HEAD2]{y} [OUTPUT]\n{decided[x[1:2], y[1:2]]}\n"

    def run(prompt: str) -> str:
        match = running(prompt)
        if match is None:
            return ""
        left1, right1, left2, right2, output, command = match.groups()
        if command == "q2":
            return stripped(f"{left1}[HEAD1]{right1} {left2}[HEAD2]{right2}", output)
        if command not in effects:
            return ""
        unit, two = effects[command]
        left1, right1 = left1 + right1[:2], right1[2:]
        if two:
            left2, right2 = left2 + right2[:2], right2[2:]
        return (
            f"REFLECTION, q1,  {left1}[HEAD1]{right1} {left2}[HEAD2]{right2} {output}{unit}[OUTPUT]\n"
            f"{decided[right1[1:2], right2[1:2]]}\n"
        )

    def strip(prompt: str) -> str:
        match = stripping(prompt)
        if match is None:
            return ""
        left1, right1, left2, right2, output, command = match.groups()
        tapes = f"{left1}[HEAD1]{right1} {left2}[HEAD2]{right2}"
        if command == "[OUTPUT] LEFT, q2":
            return stripped(tapes, output[:-2])
        end = "|0" if output == "|" else output
        return f"REFLECTION, qH,  {tapes} {end}\n{HALT}\n" if command == "[OUTPUT], qH" else ""

    def stripped(tapes: str, output: str) -> str:
        command = "[OUTPUT] LEFT, q2" if output[-1:] == "0" else "[OUTPUT], qH"
        return f"REFLECTION, q2,  {tapes} {output or '|'}[OUTPUT]\nCMD {command}\n"

    return _by_state("REFLECTION", {"q0": start, "q1": run, "q2": strip})


def _masker() -> Successor:
    starting, running, stripping = (_matcher("LEFT_MASK", state) for state in ("q0", "q1", "q2"))
    decided = {
        digit: decide(Entry("LEFT_MASK", "q1", (Tape("", digit and "|" + digit),))).command_line() for digit in _DIGITS
    }
    effects = {f"[HEAD] RIGHT, [OUTPUT] {digit}, [OUTPUT] RIGHT, q1": "|" + digit for digit in "0123456789"}

    def start(prompt: str) -> str:
        match = starting(prompt)
        return f"LEFT_MASK, q1,  [HEAD]{match[1]} [OUTPUT]\n{decided[match[1][1:2]]}\n" if match else ""

    def run(prompt: str) -> str:
        match = running(prompt)
        if match is None:
            return ""
        left, right, output, command = match.groups()
        if command == "[OUTPUT] LEFT, [OUTPUT] 0, q2":
            return stripped(f"{left}[HEAD]{right}", output[:-2])
        unit = effects.get(command)
        if unit is None:
            return ""
        left, right = left + right[:2], right[2:]
        return f"LEFT_MASK, q1,  {left}[HEAD]{right} {output}{unit}[OUTPUT]\n{decided[right[1:2]]}\n"

    def strip(prompt: str) -> str:
        match = stripping(prompt)
        if match is None:
            return ""
        left, right, output, command = match.groups()
        if command == "[OUTPUT] LEFT, q2":
            return stripped(f"{left}[HEAD]{right}", output[:-2])
        return f"LEFT_MASK, qH,  {left}[HEAD]{right} {output or '0'}\n{HALT}\n" if command == "qH" else ""

    def stripped(tape: str, output: str) -> str:
        command = "[OUTPUT] LEFT, q2" if output[-1:] == "0" else "qH"
        return f"LEFT_MASK, q2,  {tape} {output}[OUTPUT]\nCMD {command}\n"

    return _by_state("LEFT_MASK", {"q0": start, "q1": run, "q2": strip})


# ----------------------------------------------------------------------------------------------------------
# Composers


def _calls(machine: str, x: str, y: str) -> str:
    """Return the two lines of a call: the called machine's initial state and its first command."""
    end = "[C] [OUTPUT]" if machine == "ADD" else "[OUTPUT]"
    return f"{machine}, q0, [HEAD1] {x}[HEAD2] {y} {end}\n{_FIRST[machine]}"


_FIRST = {name: _first(name) for name in ("ADD", "GREATER_THAN", "LESS_THAN", "REFLECTION", "LEFT_MASK")}


def _lines(prompt: str) -> tuple[str, str, str]:
    """Return state line, command line and the result of the called machine ("" in the first prompt)."""
    lines = prompt.split("\n")
    return lines[0], lines[1] if len(lines) > 1 else "", lines[2].rpartition(" ")[2] if len(lines) > 4 else ""


def _subtractor() -> Successor:
    state_line = re.compile(r"SUB, (q[0-4]), (\[HEAD1\]([|0-9]*) \[HEAD2\]([|0-9]*) )").fullmatch
    commands = {
        "q0": "CMD q1",
        "q1": "CMD [CALL] REFLECTION, q2",
        "q2": "CMD [CALL] ADD, q3",
        "q3": "CMD [CALL] ADD, q4",
        "q4": "CMD [CALL] LEFT_MASK, qH",
    }

    def step(prompt: str) -> str:
        line, command, result = _lines(prompt)
        match = state_line(line)
        if match is None or commands[match[1]] != command:
            return ""
        state, tapes, x, y = match.groups()
        if state == "q0":
            return f"SUB, q1, {tapes}\n{commands['q1']}\n{_calls('REFLECTION', '|9' * (len(x) // 2), y)}"
        if state == "q1":
            return f"SUB, q2, {tapes}\n{commands['q2']}\n{_calls('ADD', x, result)}"
        if state == "q2":
            return f"SUB, q3, {tapes}\n{commands['q3']}\n{_calls('ADD', result, '|1')}"
        if state == "q3":
            call = f"LEFT_MASK, q0, [HEAD] {result} [OUTPUT]\n{_FIRST['LEFT_MASK']}"
            return f"SUB, q4, {tapes}\n{commands['q4']}\n{call}"
        digits = result.replace("|", "").rstrip("0") or "0"  # published prompts hold it zero padded
        return f"SUB, qH, {tapes}{digits.replace('', '|')[:-1]}\n{HALT}"

    return step


def _looper(machine: str) -> Successor:
    """MUL and DIV: which register a call feeds is all that differs."""
    pattern = machine + r", (q[0-3]), (\[HEAD1\]([|0-9]*) \[HEAD2\]([|0-9]*) \[COUNT\])([|0-9]*) \[OUTPUT\]([|0-9]*)"
    state_line, mul = re.compile(pattern).fullmatch, machine == "MUL"
    compare = "LESS_THAN" if mul else "GREATER_THAN"
    commands = {"q1": f"CMD [CALL] {compare}, q2", "q2": "CMD [CALL] ADD, q3", "q3": "CMD [CALL] ADD, q1"}
    goes_on = str(mul)

    def entered(head: str, x: str, y: str, count: str, output: str) -> str:
        call = _calls(compare, count, y if mul else x)
        return f"{machine}, q1, {head}{count} [OUTPUT]{output}\n{commands['q1']}\n{call}"

    def first(head: str, x: str, y: str, command: str) -> str:
        if mul:
            return entered(head, x, y, "|1", x) if command == f"CMD [COUNT] 1, [OUTPUT]{x}, q1" else ""
        return entered(head, x, y, y, "|0") if command == f"CMD [COUNT]{y}, [OUTPUT] 0, q1" else ""

    def compared(head: str, x: str, count: str, output: str, result: str) -> str:
        if result != goes_on:
            return f"{machine}, qH, {head}{count} {output}\n{HALT}"
        call = _calls("ADD", x, output) if mul else _calls("ADD", output, "|1")
        return f"{machine}, q2, {head}{count} [OUTPUT]{output}\n{commands['q2']}\n{call}"

    def step(prompt: str) -> str:
        line, command, result = _lines(prompt)
        match = state_line(line)
        if match is None:
            return ""
        state, head, x, y, count, output = match.groups()
        if state == "q0":
            return first(head, x, y, command)
        if command != commands[state]:
            return ""
        if state == "q1":
            return compared(head, x, count, output, result)
        if state == "q2":
            call = _calls("ADD", count, "|1") if mul else _calls("ADD", y, count)
            return f"{machine}, q3, {head}{count} [OUTPUT]{result}\n{commands['q3']}\n{call}"
        return entered(head, x, y, result, output)

    return step


_BUILDERS: dict[str, Callable[[], Successor]] = {
    "add": _adder,
    "equal": partial(_comparer, "EQUAL"),
    "greater_than": partial(_comparer, "GREATER_THAN"),
    "less_than": partial(_comparer, "LESS_THAN"),
    "reflection": _reflector,
    "left_mask": _masker,
    "sub": _subtractor,
    "mul": partial(_looper, "MUL"),
    "div": partial(_looper, "DIV"),
}


@cache
def successor_of(task: str) -> Successor:
    """Return the successor function of a task; building its tables takes about a millisecond."""
    return _BUILDERS[task]()
