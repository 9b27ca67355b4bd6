"""The machines as a model: right about every call of an evaluation, at a loss about anything else."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caef_data import tm
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.calls import BASE, SLACK, Answer, Request
from caef_data.eval.problems import aligner, executor, raw_question
from caef_data.tm.registry import machine

LONGEST = 4  # digits; mul and div walk loops
PROMPTS = ["", "\n", " ", "ADD", "12+9", "12+9=", "9+", "True\n", "|5", " |5\nNo command to execute. Halt state.\n"]


def said(answer: Answer) -> tuple[str | None, bool, int]:
    return answer.text, answer.ended, answer.decoded


def calls(task: str, seed: int = 0) -> Iterator[tuple[str, Request]]:
    """Yield calls of every kind that a task makes, of short and long operands, in both dialects."""
    rng, kind = random.Random(seed), machine(task)
    for length in (1, 2, 3, LONGEST, 60):
        a, b = rng.randrange(10 ** (length - 1), 10**length), rng.randrange(10 ** max(length - 2, 0), 10**length)
        b = 0 if kind.unary else max(1, b)
        a, b = (max(a, b), min(a, b)) if task == "sub" else (a, b)
        a = 10**length - 1 if task == "reflection" else a
        own = () if kind.unary else (b,)
        last = kind.num_steps(a, b) - 1
        for dialect in ("consistent", "published"):
            for step in sorted({min(step, last) for step in (0, 1, 2, 3, last // 2, last)}):
                found = tm.transition(task, a, *(own or (None,)), step, dialect=dialect)
                yield executor(task), Request(found.prompt, found.completion)
        if kind.has_raw:
            raw = raw_question(task, str(a), str(b))
            yield aligner(task), Request(raw, tm.align_in(raw))
            yield aligner(task), Request(*tm.align_out(task, a, b))
            yield BASE, Request(raw, str(kind.answer(a, b)))


@pytest.mark.parametrize("task", tm.tasks())
def test_right_about_every_call(task: str) -> None:
    for adapter, call in calls(task):
        [(_, verdict)] = OracleBackend().verify(adapter, [call])
        size = len(call.completion) + 1
        assert verdict == Answer(True, None, None, len(call.prompt) + size, size), call
        [(_, answer)] = OracleBackend().decode(adapter, [Request(call.prompt, call.completion)])
        assert said(answer) == (call.completion, True, len(call.completion)), call


@pytest.mark.parametrize("task", tm.tasks())
def test_wrong_about_every_changed_call(task: str) -> None:
    """What is expected has no part in the answer."""
    for adapter, call in calls(task):
        at = len(call.completion) // 2
        changed = (
            call.completion[:at] + ("7" if call.completion[at : at + 1] != "7" else "8") + call.completion[at + 1 :]
        )
        [(_, verdict)] = OracleBackend().verify(adapter, [Request(call.prompt, changed)])
        assert (verdict.right, verdict.at) == (False, at)
        [(_, answer)] = OracleBackend().decode(adapter, [Request(call.prompt, changed, known=at)])
        assert said(answer) == (call.completion, True, len(call.completion) - at)


def test_a_model_that_errs() -> None:
    call = Request("12+9=", "21")
    for change, at, answer in (
        (lambda adapter, prompt, text: text[:-1], 1, ("2", True, 1)),
        (lambda adapter, prompt, text: text + "0", 2, ("210", True, 3)),
        (lambda adapter, prompt, text: text + "0" * SLACK, 2, ("21" + "0" * SLACK, False, 2 + SLACK)),
        (
            lambda adapter, prompt, text: "21 " if (adapter, prompt) == (BASE, "12+9=") else text,
            2,
            ("21 ", True, 3),
        ),
    ):
        oracle = OracleBackend(change)
        assert next(oracle.verify(BASE, [call]))[1].at == at
        assert said(next(oracle.decode(BASE, [Request("12+9=", "21")]))[1]) == answer


def test_a_machine_of_ones_own_answers_what_is_expected() -> None:
    assert OracleBackend().answer(executor("collatz"), "COLLATZ, q0", "COLLATZ, q1") == "COLLATZ, q1"


@given(
    st.sampled_from([*map(executor, tm.tasks()), aligner("add"), aligner("mul"), BASE]),
    st.text() | st.sampled_from(PROMPTS),
)
def test_any_prompt_has_an_answer(adapter: str, prompt: str) -> None:
    """In a rollout the model's own text is the next prompt."""
    assert isinstance(OracleBackend().answer(adapter, prompt, prompt), str)


@pytest.mark.parametrize("task", ["add", "sub", "mul", "equal"])
def test_damaged_prompts_have_answers_too(task: str) -> None:
    rng = random.Random(1)
    for adapter, call in calls(task):
        for _ in range(20):
            at = rng.randrange(len(call.prompt))
            other = rng.choice(["", "|", "7", "\n", "[HEAD1]", "q1", " ", "é"])
            prompt = call.prompt[:at] + other + call.prompt[at + rng.randrange(3) :]
            assert isinstance(OracleBackend().answer(adapter, prompt, ""), str)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("SUB, qH, [HEAD1]|5|0|1 [HEAD2]|9|9 |6\nNo command to execute. Halt state.", "105-99=6"),
        ("SUB, qH, [HEAD1]|5|0|1 [HEAD2]|9|9 |6\nCMD q1", ""),
        ("SUB, qH, [HEAD1]|5|0|1 [HEAD2]|9|9 \nNo command to execute. Halt state.", ""),
        ("6\nNo command to execute. Halt state.", ""),
        ("105-99=", "SUB, q0, [HEAD1]|5|0|1 [HEAD2]|9|9 \nCMD q1\n"),
        ("105-990=", ""),
        ("105-99", ""),
        ("5//0=", ""),
    ],
)
def test_aligner(prompt: str, answer: str) -> None:
    assert OracleBackend().answer(aligner("sub"), prompt, "") == answer


@pytest.mark.parametrize(("prompt", "answer"), [("7<5=", "False"), ("7//0=", ""), ("5-7=", ""), ("5-7", ""), ("x", "")])
def test_raw(prompt: str, answer: str) -> None:
    assert OracleBackend().answer(BASE, prompt, "") == answer
