"""The plain interpreter of entries: from their texts alone, on the track of a run and off it."""

import gzip
import json
from pathlib import Path

import pytest

from caef_data.errors import UserError
from caef_data.eval.environments.environment import environment
from caef_data.tm import machine, tasks, transitions
from caef_data.tm.basic import BasicMachine, View
from caef_data.tm.columns import Number, Operands
from caef_data.tm.machine import HALT, REGISTRY
from caef_data.tm.score import score
from caef_data.tm.successor import successor, successor_of

GOLDEN = Path(__file__).parent / "golden"
ADD = "ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]\nCMD: [C] 0, [OUTPUT] 2, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1\n"
EQUAL = "EQUAL, q1,  |3[HEAD1] |3[HEAD2]|8 [OUTPUT]True\nCMD [OUTPUT] False, [OUTPUT], qH\n"
REFLECTION = (
    "REFLECTION, q1,  |9[HEAD1]|9|9 |8[HEAD2]|9 |1[OUTPUT]\n"
    "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] 0, [OUTPUT] RIGHT, q1\n"
)
MUL = (
    "MUL, q2, [HEAD1]|5|4 [HEAD2]|3 [COUNT]|1 [OUTPUT]|5|4\nCMD [CALL] ADD, q3\n"
    "ADD, qH,  |5|4[HEAD1] |5|4[HEAD2] [C]0 |0|9\nNo command to execute. Halt state.\n"
)
SUB = (
    "SUB, q4, [HEAD1]|2|1 [HEAD2]|7 \nCMD [CALL] LEFT_MASK, qH\n"
    "LEFT_MASK, qH,  |5|0|1[HEAD] |5|0\nNo command to execute. Halt state.\n"
)


@pytest.mark.parametrize("task", tasks())
def test_golden_completions_follow_from_their_prompts(task: str) -> None:
    follow = successor_of(machine(task))
    with gzip.open(GOLDEN / f"{task}.jsonl.gz", "rt") as file:
        for line in file:
            for prompt, completion in json.loads(line)["steps"]:
                assert follow(prompt) == completion


@pytest.mark.parametrize("dialect", ["consistent", "published"])
@pytest.mark.parametrize(("task", "a", "b"), [("sub", 1005, 999), ("mul", 977, 12), ("div", 4321, 98), ("add", 95, 7)])
def test_both_dialects_of_whole_runs(task: str, a: int, b: int, dialect: str) -> None:
    for step in transitions(task, a, b, dialect=dialect):
        assert successor(step.prompt) == successor(step.prompt, task=task) == step.completion


@pytest.mark.parametrize(
    ("prompt", "change", "expected"),
    [  # a wrong carry and a wrong digit, other commands, a called machine that has erred: each has one right answer
        (
            ADD,
            ("[C]1 |1", "[C]7 |8"),
            "ADD, q1,  |2|1[HEAD1] |9[HEAD2] [C]0 |8|2[OUTPUT]\nCMD: [OUTPUT] 0, [OUTPUT], [C], qH\n",
        ),
        (
            ADD,
            ("[C] 0", "[C] 1"),
            "ADD, q1,  |2|1[HEAD1] |9[HEAD2] [C]1 |1|2[OUTPUT]\nCMD: [OUTPUT] 1, [OUTPUT], [C], qH\n",
        ),
        (
            ADD,
            ("[HEAD1] RIGHT, q1", "q1"),
            "ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]0 |1|2[OUTPUT]\n"
            "CMD: [C] 0, [OUTPUT] 1, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1\n",
        ),
        (  # the line of q2 shows its heads behind the tapes, wherever a wrong command left them
            REFLECTION,
            ("[OUTPUT] 0, [OUTPUT] RIGHT, q1", "q2"),
            "REFLECTION, q2,  |9|9|9[HEAD1] |8|9[HEAD2] |1[OUTPUT]\nCMD [OUTPUT], qH\n",
        ),
        (EQUAL, ("False, [OUTPUT]", "True, [OUTPUT]"), f"EQUAL, qH,  |3[HEAD1] |3[HEAD2]|8 True\n{HALT}\n"),
        (
            MUL,
            ("|0|9\nNo", "|9|9\nNo"),
            "MUL, q3, [HEAD1]|5|4 [HEAD2]|3 [COUNT]|1 [OUTPUT]|9|9\nCMD [CALL] ADD, q1\n"
            "ADD, q0, [HEAD1] |1[HEAD2] |1 [C] [OUTPUT]\nCMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1",
        ),
        (SUB, ("|5|0\n", "|5|0\n"), f"SUB, qH, [HEAD1]|2|1 [HEAD2]|7 |5\n{HALT}"),
        (SUB, ("|5|0\n", "|0|0\n"), f"SUB, qH, [HEAD1]|2|1 [HEAD2]|7 |0\n{HALT}"),
    ],
)
def test_off_the_track(prompt: str, change: tuple[str, str], expected: str) -> None:
    assert change[0] in prompt
    assert successor(prompt.replace(*change)) == expected


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (ADD[:-1], "no entry of add"),
        (ADD.replace("|2[HEAD1]|1", "2|[HEAD1]|1"), "no entry of add"),
        (ADD.replace("|9[HEAD2]", "||9[HEAD2]"), "no entry of add"),
        (ADD.replace("|9[HEAD2]", "|9[HEAD2] "), "no entry of add"),
        (ADD.replace("CMD: ", "CMD "), "must begin with 'CMD: '"),
        (ADD.replace("[HEAD1] RIGHT", "[HEAD] RIGHT"), "is no action"),
        (ADD.replace("[HEAD1] RIGHT", "[HEAD2] RIGHT"), "off its tape"),
        (ADD.replace("[OUTPUT] 2, [OUTPUT] RIGHT", "[OUTPUT] LEFT, [OUTPUT] LEFT"), "takes back a digit"),
        (ADD.replace("RIGHT, q1", "RIGHT, q7"), "one of the states q1, qH"),
        (EQUAL.replace("q1, ", "q2, "), "no entry of equal"),
        ("EQUAL, qH,  |3[HEAD1] |3[HEAD2]|8 False\nNo command to execute. Halt state.\n", "has halted"),
        (MUL.replace("ADD, qH", "SUB, qH"), "the halting entry of add must follow"),
        (MUL.replace("|0|9\nNo", "True\nNo"), "must halt with a number"),
        (MUL.replace("[CALL] ADD", "[CALL] SUB"), "the command is CMD [CALL] ADD, q3"),
        (MUL[:-1], "no entry of mul"),
        ("MUL, q0, [HEAD1]|5 [HEAD2]|3 [COUNT] [OUTPUT]\nCMD [COUNT] 2, [OUTPUT]|5, q1\n", "the first command of mul"),
        ("", "must begin with the name of a machine"),
        ("NONSENSE, q1", "must begin with the name of a machine: ADD, DIV"),
    ],
)
def test_texts_that_nothing_follows(prompt: str, why: str) -> None:
    with pytest.raises(UserError, match="nothing follows this entry") as refused:
        successor(prompt)
    assert why in str(refused.value)


class Back(BasicMachine):
    """Goes to the end of a number, then back, then halts: it looks at its whole tape to know where it stands."""

    name = "back"
    unary = True
    states = {
        "q0": "BACK, q0, [HEAD] {a} [OUTPUT]",
        "q1": "BACK, q1,  {a_left}[HEAD]{a_right} {out}[OUTPUT]",
        "q2": "BACK, q2,  {a_left}[HEAD]{a_right} {out}[OUTPUT]",
        "qH": "BACK, qH,  {a_left}[HEAD]{a_right} {out}",
    }

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD [HEAD] RIGHT, q1"
        if view.state == "q1":
            more = view.heads[0] < len(view.tapes[0])
            return f"CMD [OUTPUT] {view.symbol}, [OUTPUT] RIGHT, [HEAD] RIGHT, q1" if more else "CMD [HEAD] LEFT, q2"
        return "CMD [HEAD] LEFT, q2" if view.heads[0] > 0 else "CMD [OUTPUT], qH"


BACK = REGISTRY.pop("back")


def test_a_machine_that_looks_at_whole_tapes_is_walked_and_its_entries_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "back", BACK)
    assert isinstance(BACK, BasicMachine) and BACK.table is None
    assert BACK.notes() == ("back: it looks at heads, so its rows are made step by step, which is slower",)
    batch = BACK.batch(Operands(Number.of([120, 7]), None), "consistent")
    rows = batch.every()
    walked = [step for number in (120, 7) for step in BACK.transitions(number, 0, "consistent")]
    assert batch.prompts(rows).text.to_pylist() == [step.prompt for step in walked]
    assert batch.completions(rows).text.to_pylist() == [step.completion for step in walked]
    for step in walked:
        assert successor(step.prompt) == step.completion


class Before(BasicMachine):
    """Goes to the end of a number and back to before its first digit, looks there once more, and writes the digit."""

    name = "before"
    unary = True
    states = {
        "q0": "BEFORE, q0, [HEAD] {a} [OUTPUT]",
        **{f"q{n}": f"BEFORE, q{n},  {{a_left}}[HEAD]{{a_right}} {{out}}[OUTPUT]" for n in (1, 2, 3, 4)},
        "qH": "BEFORE, qH,  {a_left}[HEAD]{a_right} {out}",
    }

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD [HEAD] RIGHT, q1"
        if view.state == "q1":
            return f"CMD [HEAD] {'RIGHT, q1' if view.symbol else 'LEFT, q2'}"
        if view.state == "q2":
            return f"CMD {'[HEAD] LEFT, q2' if view.symbol else 'q3'}"
        if view.state == "q3":
            return "CMD [HEAD] RIGHT, q4" if not view.symbol else "CMD qH"
        return f"CMD [OUTPUT] {view.symbol}, [OUTPUT], qH"


class Hidden(BasicMachine):
    """Writes the first digit behind the others, and has it in a carry that no entry shows."""

    name = "hidden"
    unary = True
    states = {
        "q0": "HIDDEN, q0, [HEAD] {a} [OUTPUT]",
        "q1": "HIDDEN, q1,  {a_left}[HEAD]{a_right} {out}[OUTPUT]",
        "q2": "HIDDEN, q2,  {a_left}[HEAD]{a_right} {out}[OUTPUT]",
        "qH": "HIDDEN, qH,  {a_left}[HEAD]{a_right} {out}",
    }

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD [HEAD] RIGHT, q1"
        if view.state == "q1":
            return f"CMD [C] {view.symbol}, [OUTPUT] {view.symbol}, [OUTPUT] RIGHT, [HEAD] RIGHT, q2"
        if view.symbol:
            return f"CMD [OUTPUT] {view.symbol}, [OUTPUT] RIGHT, [HEAD] RIGHT, q2"
        return f"CMD [OUTPUT] {view.carry or 0}, [OUTPUT], qH"


class Counted(BasicMachine):
    """Copies a number without 9 and adds how many digits it has: it looks at the whole output, and goes right alone."""

    name = "counted"
    unary = True
    states = {
        "q0": "COUNTED, q0, [HEAD] {a} [OUTPUT]",
        "q1": "COUNTED, q1,  {a_left}[HEAD]{a_right} {out}[OUTPUT]",
        "qH": "COUNTED, qH,  {a_left}[HEAD]{a_right} {out}",
    }

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD [HEAD] RIGHT, q1"
        if view.symbol == "9":
            raise ValueError("a 9")
        if not view.symbol:
            return f"CMD [OUTPUT] {len(view.output) % 10}, [OUTPUT], qH"  # type: ignore[attr-defined]
        return f"CMD [OUTPUT] {view.symbol}, [OUTPUT] RIGHT, [HEAD] RIGHT, q1"


BEFORE, HIDDEN, COUNTED = (REGISTRY.pop(name) for name in ("before", "hidden", "counted"))


@pytest.mark.parametrize("own", [BEFORE, COUNTED], ids=lambda own: own.name)
def test_heads_on_the_first_digit_and_before_it(own: BasicMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, own.name, own)
    assert (own.table is None) is (own is COUNTED)
    for number in (7, 33, 1050, 300):
        for step in own.transitions(number, 0, "consistent"):
            assert successor(step.prompt) == step.completion
    if own is BEFORE:  # decide says that neither on the first digit nor before it
        with pytest.raises(UserError, match="on its first digit or before it"):
            successor("BEFORE, q2,  [HEAD]|7|4 [OUTPUT]\nCMD [HEAD] RIGHT, q2\n")
    rows = environment(task=own.name, min=2, max=2, num=4, mode="run")
    turn, reward = rows.reset(), 0.0
    for step in own.transitions(int(turn.info["a"]), 0, "consistent"):
        turn = rows.step(step.completion)
        reward += turn.reward
    assert turn.done and turn.info["end"] == "halted" and reward == pytest.approx(1)


def test_entries_that_hide_what_their_machine_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "hidden", HIDDEN)
    *_, step, last = HIDDEN.transitions(471, 0, "consistent")
    assert last.prompt.endswith("CMD [OUTPUT] 1, [OUTPUT], qH\n")
    for ask in (lambda: successor(step.prompt), lambda: score(step.prompt, step.completion)):
        with pytest.raises(UserError, match="entries of hidden do not tell what follows them"):
            ask()
    with pytest.raises(UserError, match="entries of hidden do not tell what follows them"):
        environment(task="hidden", min=2, max=3, num=4, mode="run").reset()
    rows = environment(task="hidden", min=2, max=3, num=4)  # the row itself tells the answer
    assert rows.reset(0) and rows.step(rows.rows[0]["completion"]).reward == 1


def test_a_halting_entry_shows_the_answer() -> None:
    class Truth(type(COUNTED)):  # type: ignore[misc]
        def decide(self, view: View) -> str:
            return "CMD [OUTPUT] True, [OUTPUT], qH" if view.state == "q1" else "CMD [HEAD] RIGHT, q1"

    with pytest.raises(UserError, match="halts with True or False, which its state line qH does not show"):
        assert Truth().table


def test_a_machine_that_is_defined_again_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook, whose cell is changed and run once more."""
    monkeypatch.setitem(REGISTRY, "back", BACK)
    step = next(BACK.transitions(12, 0, "consistent"))
    assert successor(step.prompt) == step.completion and score(step.prompt, step.completion).right

    class Changed(type(BACK)):  # type: ignore[misc]
        def decide(self, view: View) -> str:
            return "CMD [OUTPUT], qH" if view.state == "q1" else "CMD [HEAD] RIGHT, q1"

    monkeypatch.setitem(REGISTRY, "back", Changed())
    step = next(REGISTRY["back"].transitions(12, 0, "consistent"))
    assert step.completion.endswith("CMD [OUTPUT], qH\n")
    assert successor(step.prompt) == step.completion and score(step.prompt, step.completion).right


@pytest.mark.parametrize(
    ("entry", "old", "new"),
    [
        (ADD, "[HEAD1]|1", "[HEAD2]|1"),
        (ADD, "ADD, q1", "ADD, q2"),
        (MUL, "MUL, q2", "MUL, q4"),
        (MUL, "[HEAD1]|5", "[HEAD3]|5"),
        (MUL, "ADD, q3", "ADD, q2"),
    ],
)
def test_an_entry_of_a_known_shape_is_still_read_strictly(entry: str, old: str, new: str) -> None:
    successor(entry)  # how texts of this shape are cut is kept
    with pytest.raises(UserError):
        successor(entry.replace(old, new, 1))
