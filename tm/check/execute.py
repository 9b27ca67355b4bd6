"""Run the command of a parsed entry on its own tapes, and decide what the machine must do next.

The careful, slow half of the checker: it works on configurations from ``grammar`` and says in words what is
wrong. ``successor`` does the same to texts of right rows, fast.
"""

from dataclasses import replace

from .closed import Problem
from .closed_composers import problem, step_of
from .grammar import COMPOSERS, MACHINES, TASKS, Entry, ParseError, Tape, parse
from .text import difference, shown, written

_NOTHING = ("", "True", "False")


class ExecutionError(ValueError):
    """A command cannot be run on the tapes of its entry."""


# ----------------------------------------------------------------------------------------------------------
# Executing a command


def execute(entry: Entry) -> Entry:
    """Run an entry's command on its tapes; give the next configuration, its command and call still empty.

    A composer's ``[CALL]`` takes its result from the halting entry of the called machine in ``entry.call``.

    Raises:
        ExecutionError: the machine has halted, a head would leave its tape, or a call has no result.

    """
    if not entry.command:
        raise ExecutionError("the machine has halted: there is no command to run")
    return _execute_composer(entry) if entry.machine in COMPOSERS else _execute_basic(entry)


def _execute_basic(entry: Entry) -> Entry:
    tapes, carry, output = list(entry.tapes), entry.carry, entry.output or ""
    pending = ""  # a digit written at the output's head that has not moved on
    for action in entry.command[:-1]:
        target, _, value = action.partition(" ")
        if target.startswith("[HEAD"):
            index = 1 if target == "[HEAD2]" else 0
            tapes[index] = _move(tapes[index], target, entry.state)
        elif target == "[C]":
            carry = value or carry
        elif value == "RIGHT":
            output, pending = output + "|" + pending, ""
        elif value == "LEFT":
            output = _strip(entry.machine, output)
        elif value in ("True", "False"):
            output = value
        elif value:
            pending = value
    halts = entry.command[-1] == "qH"
    if halts and pending not in ("", "0"):  # the last carry; a 0 would be a leading zero
        output += "|" + pending
    if halts and entry.machine == "REFLECTION" and output == "|":
        output = "|0"
    if halts and entry.machine == "LEFT_MASK" and not output:
        output = "0"
    return Entry(entry.machine, entry.command[-1], tuple(tapes), carry, None, output)


def _move(tape: Tape, head: str, state: str) -> Tape:
    if state == "q0":  # from before the operand onto its first digit: nothing moves in the text
        return tape
    if not tape.right:
        raise ExecutionError(f"{head} RIGHT: the head already stands behind its operand")
    return Tape(tape.left + tape.right[:2], tape.right[2:])


def _strip(machine: str, output: str) -> str:
    if len(output) < 2:
        raise ExecutionError("[OUTPUT] LEFT: nothing is written")
    return output[:-2] or ("|" if machine == "REFLECTION" else "")


def _execute_composer(entry: Entry) -> Entry:
    state, count, output = entry.command[-1], entry.count, entry.output
    for action in entry.command[:-1]:
        if action.startswith("[COUNT]"):
            count = _literal_digits(action.removeprefix("[COUNT]"))
        elif action.startswith("[OUTPUT]"):
            output = _literal_digits(action.removeprefix("[OUTPUT]"))
    if entry.command[0].startswith("[CALL]"):
        result = result_of(entry)
        if entry.machine == "SUB":
            output = result if state == "qH" else None
        elif entry.state == "q1":  # the comparison: mul goes on while count < b, div until count > a
            state = "q2" if result == ("True" if entry.machine == "MUL" else "False") else "qH"
        elif entry.state == "q2":
            output = result
        else:
            count = result
    return Entry(entry.machine, state, entry.tapes, None, count, output, ended=False)


def _literal_digits(value: str) -> str:
    return value if value.startswith("|") else "|" + value.strip()


def result_of(entry: Entry) -> str:
    """Return the called machine's result: digits without leading zeros, as on a tape, or True or False."""
    if entry.call is None or entry.call.state != "qH" or entry.call.output is None:
        raise ExecutionError("the halting entry of the called machine is missing")
    output = entry.call.output
    if output in ("True", "False"):
        return output
    return written(output.replace("|", "")[::-1].lstrip("0") or "0")


# ----------------------------------------------------------------------------------------------------------
# Deciding the command of a configuration


def decide(entry: Entry, result: str = "") -> Entry:
    """Give a configuration its command (and its call), as the machine's rules say.

    Args:
        entry: a configuration, as ``execute`` gives it.
        result: what the machine called before has answered (SUB hands it to the next one).

    """
    if entry.state == "qH":
        return replace(entry, command=(), call=None)
    if entry.machine in COMPOSERS:
        return _decide_composer(entry, result)
    if entry.state == "q0":
        return replace(entry, command=_FIRST[entry.machine])
    rule = {
        "ADD": _decide_add,
        "EQUAL": _decide_equal,
        "GREATER_THAN": _decide_order,
        "LESS_THAN": _decide_order,
        "REFLECTION": _decide_reflection,
        "LEFT_MASK": _decide_left_mask,
    }[entry.machine]
    return replace(entry, command=rule(entry))


_BOTH = ("[HEAD1] RIGHT", "[HEAD2] RIGHT")
_FIRST = {
    "ADD": ("[C] 0", *_BOTH, "q1"),
    "EQUAL": (*_BOTH, "[OUTPUT] True", "q1"),
    "GREATER_THAN": (*_BOTH, "[OUTPUT] False", "q1"),
    "LESS_THAN": (*_BOTH, "[OUTPUT] False", "q1"),
    "REFLECTION": (*_BOTH, "q1"),
    "LEFT_MASK": ("[HEAD] RIGHT", "q1"),
}


def _decide_add(entry: Entry) -> tuple[str, ...]:
    under1, under2 = (tape.under for tape in entry.tapes)
    if not under1 and not under2:
        return (f"[OUTPUT] {entry.carry}", "[OUTPUT]", "[C]", "qH")
    carry, unit = divmod(int(under1 or 0) + int(under2 or 0) + int(entry.carry or 0), 10)
    moves = [move for move, under in zip(_BOTH, (under1, under2), strict=True) if under]
    return (f"[C] {carry}", f"[OUTPUT] {unit}", "[OUTPUT] RIGHT", *moves, "q1")


def _decide_equal(entry: Entry) -> tuple[str, ...]:
    under1, under2 = (tape.under for tape in entry.tapes)
    if under1 != under2:
        return ("[OUTPUT] False", "[OUTPUT]", "qH")
    return (*_BOTH, "q1") if under1 else ("[OUTPUT]", "qH")


def _decide_order(entry: Entry) -> tuple[str, ...]:
    under1, under2 = (tape.under for tape in entry.tapes)
    larger = under1 > under2 if entry.machine == "GREATER_THAN" else under1 < under2
    verdict = () if under1 == under2 else (f"[OUTPUT] {larger}",)  # "" < "0": a longer operand is larger
    return (*_BOTH, *verdict, "q1") if under1 and under2 else (*verdict, "[OUTPUT]", "qH")


def _decide_reflection(entry: Entry) -> tuple[str, ...]:
    under1, under2 = (tape.under for tape in entry.tapes)
    if entry.state == "q2":
        return ("[OUTPUT] LEFT", "q2") if (entry.output or "").endswith("0") else ("[OUTPUT]", "qH")
    if not under1:
        return ("q2",)
    moves = _BOTH if under2 else _BOTH[:1]
    return (*moves, f"[OUTPUT] {9 - int(under2 or 0)}", "[OUTPUT] RIGHT", "q1")


def _decide_left_mask(entry: Entry) -> tuple[str, ...]:
    under = entry.tapes[0].under
    if entry.state == "q2":
        return ("[OUTPUT] LEFT", "q2") if (entry.output or "").endswith("0") else ("qH",)
    return (
        ("[HEAD] RIGHT", f"[OUTPUT] {under}", "[OUTPUT] RIGHT", "q1")
        if under
        else ("[OUTPUT] LEFT", "[OUTPUT] 0", "q2")
    )


def _decide_composer(entry: Entry, result: str) -> Entry:
    a, b = (tape.written for tape in entry.tapes)
    one, count, output = "|1", entry.count or "", entry.output or ""
    if entry.state == "q0":
        first = {
            "SUB": ("q1",),
            "MUL": ("[COUNT] 1", f"[OUTPUT]{a}", "q1"),
            "DIV": (f"[COUNT]{b}", "[OUTPUT] 0", "q1"),
        }
        return replace(entry, command=first[entry.machine])
    name, after, x, y = {
        ("SUB", "q1"): ("REFLECTION", "q2", "|9" * (len(a) // 2), b),
        ("SUB", "q2"): ("ADD", "q3", a, result),
        ("SUB", "q3"): ("ADD", "q4", result, one),
        ("SUB", "q4"): ("LEFT_MASK", "qH", result, ""),
        ("MUL", "q1"): ("LESS_THAN", "q2", count, b),
        ("MUL", "q2"): ("ADD", "q3", a, output),
        ("MUL", "q3"): ("ADD", "q1", count, one),
        ("DIV", "q1"): ("GREATER_THAN", "q2", count, a),
        ("DIV", "q2"): ("ADD", "q3", output, one),
        ("DIV", "q3"): ("ADD", "q1", b, count),
    }[entry.machine, entry.state]
    tapes = (Tape("", x), Tape("", y)) if y else (Tape("", x),)
    call = decide(Entry(name, "q0", tapes, ended=False))
    return replace(entry, command=(f"[CALL] {name}", after), call=call)


# ----------------------------------------------------------------------------------------------------------
# Checking a transition


def check_transition(task: str, prompt: str, completion: str, dialect: str = "consistent") -> str | None:
    """Check one training step from its text alone; return None, or a message saying what is wrong.

    The prompt must be an entry that a run of ``task`` really passes through (its operands are read off the
    tapes, all the rest is checked with integers); the completion must be what running the prompt's command
    gives.
    """
    try:
        entry = parse(prompt)
    except ParseError as error:
        return f"prompt: {error}"
    if entry.machine != MACHINES[task]:
        return f"prompt: expected machine {MACHINES[task]}, found {entry.machine}"
    numbers = [tape.number for tape in entry.tapes]
    work = problem(task, numbers[0], numbers[1] if len(numbers) > 1 else None)
    if isinstance(work, str):
        return f"prompt: {work}"
    return check_at(work, entry, prompt, completion, dialect, locate(entry))


def check_at(work: Problem, entry: Entry, prompt: str, completion: str, dialect: str, step: int) -> str | None:
    """Check a transition of known operands and step. ``entry`` is the parsed prompt."""
    if not 0 <= step < work.n_steps:
        return f"prompt: step {shown(step)} is not one of this run's {shown(work.n_steps)} transitions"
    expected = work.prompt(step, dialect)
    if prompt != expected:
        return f"prompt of step {shown(step)}: {difference(expected, prompt)}"
    try:
        after = execute(entry)
    except ExecutionError as error:
        return f"prompt: {error}"
    after = decide(after, result_of(entry) if entry.call else "")
    if completion != after.text():
        return f"completion of step {shown(step)}: {difference(after.text(), completion)}"
    return None


def locate(entry: Entry) -> int:
    """Return the 0-based index of the transition that starts at this entry; -1 where none does."""
    if entry.state in ("q0", "qH"):
        return 0 if entry.state == "q0" else -1
    task = TASKS[entry.machine]
    digits = len((entry.output or "").replace("|", "")) if entry.output not in _NOTHING else 0
    size = len(entry.tapes[0].written) // 2
    if task == "sub":
        return int(entry.state[1])
    if task in ("mul", "div"):
        counted = (entry.count if task == "mul" else entry.output) or ""
        return step_of(task, entry.state, counted)
    if entry.state == "q2":
        return size + 2 + (size - digits if task == "reflection" else size - 1 - digits)
    return 1 + (digits if task == "add" else entry.tapes[0].head)
