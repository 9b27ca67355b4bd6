"""Scores of answers: right to the character or not, the first wrong place, and which parts are right."""

import os.path
import random
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caef_data
from caef_data import UserError, score, successor, transition, transitions
from caef_data.tests.test_any_machine import turing
from caef_data.tests.test_own_machine import MAX
from caef_data.tests.test_successor import ADD, BACK, MUL, SUB
from caef_data.tm import machine
from caef_data.tm.machine import HALT, REGISTRY, Machine
from caef_data.tm.registry import register

TABLE = "1RB1LB_1LA0LC_1RZ1LD_1RD0RA"
BASIC = ("state", "heads", "tapes", "carry", "output", "command")
PARTS = {
    "add": BASIC,
    **dict.fromkeys(("equal", "greater_than", "less_than", "reflection", "left_mask"), (*BASIC[:3], *BASIC[4:])),
    "sub": ("state", "tapes", "output", "command"),
    **dict.fromkeys(("mul", "div"), ("state", "tapes", "carry", "output", "command")),
}
RUNS = {  # operands of runs that show every state
    **dict.fromkeys(("add", "greater_than", "sub", "less_than"), (907, 98)),
    **{"mul": (45, 3), "div": (45, 14), "equal": (455, 355), "reflection": (999, 990), "left_mask": (10071,)},
}


def wrong_parts(prompt: str, answer: str) -> set[str]:
    return {part for part, right in score(prompt, answer).parts.items() if not right}


@pytest.mark.parametrize("task", PARTS)
def test_every_right_answer_is_right_and_every_other_one_wrong(task: str) -> None:
    """Right means equal, the first wrong place is the first difference, and all parts are right only then."""
    steps = list(islice(transitions(task, *RUNS[task]), 40))
    answers = [step.completion for step in steps]
    rng = random.Random(task)
    for step in steps:
        text = step.completion
        cuts = [text[: rng.randrange(len(text))] for _ in range(3)]
        places = [rng.randrange(len(text)) for _ in range(40)]
        changed = [text[:at] + rng.choice("019|H q\n") + text[at + rng.randint(0, 1) :] for at in places]
        for answer in {*answers, *cuts, *changed, text[:-1], text + "\n", text + " ", "", HALT}:
            found = score(step.prompt, answer)
            assert found.right is bool(found) is (answer == text) is all(found.parts.values()), (answer, found)
            assert tuple(found.parts) == PARTS[task]
            common = len(os.path.commonprefix([answer, text]))
            assert found.first_wrong == (None if answer == text else common)
            assert found.expected == text == successor(step.prompt)
            assert score(step.prompt, answer, task=task) == found


@pytest.mark.parametrize(
    ("prompt", "old", "new", "wrong"),
    [
        (ADD, "q1", "qH", {"state"}),  # the texts of two states differ in more than the name
        (ADD, "|2|1[HEAD1]", "|2[HEAD1]|1", {"heads"}),
        (ADD, "|2|1[HEAD1]", "|2|7[HEAD1]", {"tapes"}),
        (ADD, "|2|1[HEAD1]", "|2[HEAD1]", {"heads", "tapes"}),
        (ADD, "[C]0", "[C]1", {"carry"}),
        (ADD, "|1|2[OUTPUT]\n", "|1|3[OUTPUT]\n", {"output"}),
        (ADD, "CMD: [OUTPUT] 0", "CMD: [OUTPUT] 1", {"command"}),
        (MUL, "q3, [HEAD1]", "q1, [HEAD1]", {"state"}),
        (MUL, "[COUNT]|1", "[COUNT]|2", {"carry"}),
        (MUL, "[OUTPUT]|0|9", "[OUTPUT]|9|9", {"output"}),
        (MUL, "[HEAD1]|5|4", "[HEAD1]|5|5", {"tapes"}),
        (MUL, "ADD, q0, [HEAD1] |1", "ADD, q0, [HEAD1] |2", {"command"}),
        (SUB, "|7 |5", "|7 |6", {"output"}),
        (SUB, "|7 |5", "|7 ", {"output"}),
        (ADD, "[C]0", "[C]00", {"carry"}),  # a part that is nonsense
        (ADD, " [C]0", "[C]0", {"heads", "tapes", "carry", "output"}),  # no state line of the machine
        (ADD, "ADD, q1,  |", "ADD, q7,  |", {"state", "heads", "tapes", "carry", "output"}),
    ],
)
def test_parts(prompt: str, old: str, new: str, wrong: set[str]) -> None:
    expected = successor(prompt)
    assert old in expected
    answer = expected.replace(old, new, 1)
    if "qH" in new:
        answer = answer.replace("|1|2[OUTPUT]\n", "|1|2\n")
    assert wrong_parts(prompt, answer) == wrong


def test_the_final_newline_is_judged_as_evaluation_does() -> None:
    """``eval`` compares texts: of a basic machine the newline belongs to the answer, of a composer it does not."""
    add, sub = successor(ADD), successor(SUB)
    assert add.endswith("\n") and not sub.endswith("\n")
    cut, more = score(ADD, add[:-1]), score(SUB, sub + "\n")
    assert (cut.right, cut.first_wrong, wrong_parts(ADD, add[:-1])) == (False, len(add) - 1, {"command"})
    assert (more.right, more.first_wrong, wrong_parts(SUB, sub + "\n")) == (False, len(sub), {"command"})


def test_off_the_track() -> None:
    prompt = ADD.replace("[C]1 |1", "[C]7 |8")
    assert score(prompt, successor(prompt)).right and not score(prompt, successor(ADD)).right
    assert wrong_parts(prompt, successor(ADD)) == {"output"}


def test_machines_of_ones_own() -> None:
    """A machine in Python, one that looks at whole tapes, and a Turing machine of a declaration; two of one name."""
    REGISTRY.update({"back": BACK, "max": MAX})
    for found, a, b in ((MAX, 12, 9), (BACK, 120, 0)):
        steps = list(found.transitions(a, b, "consistent"))[1:]
        for step in steps:
            assert score(step.prompt, step.completion).right
            wrong = step.completion.replace("\nCMD", "\ncmd").replace(HALT, "")
            assert wrong_parts(step.prompt, wrong) == {"command"}
    for table, step_count in ((TABLE, 107), ("1RB1LB_1LA1RZ", 6)):
        own: Machine = turing("beaver", "bbchallenge", table)
        register(own)
        walked = list(own.transitions("", 0, "consistent"))  # type: ignore[arg-type]
        assert len(walked) == step_count
        for step in walked:
            found_score = score(step.prompt, step.completion)
            assert found_score.right and tuple(found_score.parts) == ("state", "heads", "tapes", "command")
    prompt, answer = walked[3].prompt, walked[3].completion
    state = answer.split(", ")[1]
    assert wrong_parts(prompt, answer.replace("|1", "|0", 1)) == {"tapes"}
    assert wrong_parts(prompt, answer.replace(f", {state},", f", {'A' if state == 'B' else 'B'},", 1)) == {"state"}
    assert wrong_parts(prompt, "BEAVER, nowhere") == {"state", "heads", "tapes", "command"}


HOSTILE = ["\0" * 50, "\ud800|1", "ADD, q1,  |\u0661[HEAD1]", "|1" * 500_000, "ADD, q1,  " + "|1" * 300_000, "\n" * 9]


@pytest.mark.parametrize("prompt", [ADD, MUL, SUB])
@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_answers_have_scores(prompt: str, answer: str) -> None:
    found = score(prompt, answer)
    assert not found.right and found.first_wrong == len(os.path.commonprefix([answer, found.expected]))
    with_digits = successor(prompt).replace("1", "\u0661")
    assert not score(prompt, with_digits).right


@settings(max_examples=60, deadline=None)
@given(st.text() | st.text(alphabet="ADMULSB, q1H|029[]E\nCTOP:"))
def test_any_text_has_a_score(answer: str) -> None:
    for prompt in (ADD, MUL, SUB):
        found = score(prompt, answer)
        assert found.right is all(found.parts.values()) is (answer == found.expected)


@pytest.mark.parametrize(
    "arguments",
    [
        ("",),
        ("12+9=",),
        (ADD[:-1],),
        (ADD.replace("q1", "q7"),),
        (transition("add", 1, 2, 2).completion,),
    ],
    ids=repr,
)
def test_a_bad_prompt_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(UserError):
        score(*arguments, "answer")


def test_other_bad_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="the answer must be a text"):
        score(ADD, [{"role": "assistant", "content": "x"}])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="there is no task 'ad'"):
        score(ADD, "", task="ad")
    with pytest.raises(UserError, match="no entry of sub"):
        score(ADD, "", task="sub")
    assert caef_data.score is score and machine("add").name == "add"


def test_a_raw_prompt_is_told_what_takes_it() -> None:
    with pytest.raises(UserError, match="must begin with the name of a machine: ADD, .*; it is a raw text") as told:
        score("12+9=", "21")
    assert "environment" in str(told.value)
