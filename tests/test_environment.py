"""Environments: one step, and whole runs on a model's own answers, also after a slip."""

from typing import Any

import pytest

import caef_data
from caef_data import UserError, environment, score, successor
from caef_data.eval.environments.environment import Environment, Turn

SETTINGS = {
    "task": ["add", "sub", "mul", "left_mask"],
    "min": 1,
    "max": 3,
    "num": 1,
    "num_test": 2,
    "views": ["one_step", "full", "aligner", "raw"],
}


def made(**settings: Any) -> Environment:
    more = {name: settings.pop(name) for name in ("task", "dialect") if name in settings}
    return environment({**SETTINGS, **more}, **{"split": "test", **settings})


def play(env: Environment, turn: Turn, slips: dict[int, tuple[str, str]] | None = None) -> list[Turn]:
    """Answer every prompt rightly, but for some changes; return the turns."""
    turns = [turn]
    while not turns[-1].done:
        prompt = turns[-1].prompt
        assert prompt is not None
        answer = successor(prompt)
        if slips is not None and len(turns) in slips:
            old, new = slips[len(turns)]
            assert old in answer
            answer = answer.replace(old, new, 1)
        turns.append(env.step(answer))
    return turns


def test_a_step_is_an_episode() -> None:
    env = made()
    for number in range(20):
        turn = env.reset(number)
        assert turn.prompt is not None and (turn.reward, turn.done, turn.score) == (0.0, False, None)
        right = env.step(successor(turn.prompt))
        assert (right.reward, right.done, right.prompt, right.info["end"]) == (1.0, True, None, "answered")
        env.reset(number)
        wrong = env.step(turn.prompt)
        assert wrong.reward == 0.0 and wrong.score == score(turn.prompt, turn.prompt) and not wrong.info["right"]
    with pytest.raises(UserError, match="there is no episode"):
        env.step("x")


def test_numbers() -> None:
    env, other = made(), made()
    rows = [env.reset().info["number"] for _ in range(3)]
    assert rows == [0, 1, 2] and env.reset(7).prompt == other.reset(7).prompt and env.reset().info["number"] == 8
    for number in (-1, True, "1", 2**70):
        with pytest.raises(UserError):
            env.reset(number)  # type: ignore[arg-type]


@pytest.mark.parametrize("calls", ["environment", "model"])
@pytest.mark.parametrize("task", ["add", "sub", "mul", "left_mask"])
def test_a_right_run_is_worth_one(task: str, calls: Any) -> None:
    env = made(task=task, mode="run", calls=calls)
    for number in range(8):
        turns = play(env, env.reset(number))
        row = env.rows[number]
        assert sum(turn.reward for turn in turns) == pytest.approx(1)
        assert turns[-1].info == {
            "number": number,
            "right": True,
            "task": task,
            "a": row["a"],
            "b": row["b"],
            "end": "halted",
        }
        assert turns[-1].score is not None and turns[-1].score.expected == row["completion"]
        assert [turn.reward for turn in turns[1:-1]] == [turns[1].reward] * (len(turns) - 2)
        if calls == "environment" or task in ("add", "left_mask"):
            assert len(turns) - 1 == row["n_steps"] == len(row["trace"])
        else:
            assert len(turns) - 1 > row["n_steps"]


def test_after_a_slip_the_run_goes_on_from_what_the_model_wrote() -> None:
    """A wrong digit in the output: each later answer is right by what stands there, and the last entry is wrong."""
    env = environment({"task": "add", "min": 2, "max": 2, "num": 1, "num_test": 60}, split="test", mode="run")
    number = next(i for i in range(60) if env.rows[i]["trace"][1].count("|1[OUTPUT]") and env.rows[i]["n_steps"] == 4)
    turns = play(env, env.reset(number), {2: ("|1[OUTPUT]", "|7[OUTPUT]")})
    scores = [turn.score.right for turn in turns[1:] if turn.score is not None]
    assert scores == [True, False, True, True]
    assert [turn.reward for turn in turns[1:]] == [0.125, 0.0, 0.125, 0.125]
    assert turns[-1].info["end"] == "halted" and not turns[-1].info["right"]
    assert turns[3].prompt is not None and "|7|" in turns[3].prompt


def test_a_called_machine_is_run_on_what_the_model_wrote() -> None:
    """``sub`` that calls ADD with another operand gets the sum of that operand."""
    env = environment({"task": "sub", "min": 3, "max": 3, "num": 1, "num_test": 9}, split="test", mode="run")
    start = env.reset(0)
    assert start.prompt is not None
    answer = env.step(successor(start.prompt))
    assert answer.prompt is not None and "REFLECTION, qH" in answer.prompt
    lines = successor(answer.prompt).split("\n")
    lines[2] = lines[2].partition("[HEAD2] ")[0] + "[HEAD2] |5 [C] [OUTPUT]"
    turn = env.step("\n".join(lines))
    assert turn.prompt is not None and not turn.done and not turn.info["right"]
    a = int(env.rows[0]["a"])
    assert turn.prompt.endswith(
        "".join(f"|{digit}" for digit in str(a + 5)[::-1]) + "\nNo command to execute. Halt state.\n"
    )


@pytest.mark.parametrize("calls", ["environment", "model"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("REFLECTION, q2", "REFLECTION, q3"),
        ("REFLECTION, q0", "ADD, q0"),
        ("REFLECTION, q0", "SUB, q0"),
        ("[HEAD1]|", "[HEAD1]||"),
        ("CMD [HEAD1] RIGHT", "CMD [HEAD1] LEFT"),
        ("\nREFLECTION", "\n\nREFLECTION"),
    ],
)
def test_an_answer_that_nothing_follows_ends_the_episode(old: str, new: str, calls: Any) -> None:
    env = environment(
        {"task": "sub", "min": 3, "max": 3, "num": 1, "num_test": 9}, split="test", mode="run", calls=calls
    )
    start = env.reset(0)
    assert start.prompt is not None
    right = successor(start.prompt)
    assert old in right
    turn = env.step(right.replace(old, new, 1))
    assert turn.done and turn.reward == 0.0 and turn.info["end"] == "no entry follows" and turn.prompt is None


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "x",
        "\0" * 9,
        "\ud800",
        "|1" * 100_000,
        "ADD, q1\n\n\n",
        "\n\n\n\n",
        "MUL, qH\nNo command to execute. Halt state.",
    ],
)
@pytest.mark.parametrize("task", ["add", "mul"])
def test_hostile_answers_end_a_run(task: str, answer: str) -> None:
    env = made(task=task, mode="run")
    env.reset(0)
    turn = env.step(answer)
    assert turn.done and turn.reward == 0.0 and turn.score is not None and not turn.score.right


def test_a_run_in_circles_ends_and_pays_no_more_than_its_turns() -> None:
    """A model that never lets the heads move answers each of its own entries rightly but for the command."""
    env = made(task="left_mask", mode="run")
    turn = env.reset(0)
    length, turns = env.rows[0]["n_steps"], [turn]
    while not turn.done:
        assert turn.prompt is not None
        line = successor(turn.prompt).partition("\n")[0]
        turn = env.step(f"{line}\nCMD q1\n")
        turns.append(turn)
    assert turn.info["end"] == "too many turns" and len(turns) == 1 + 2 * length + 8
    assert sum(turn.reward for turn in turns) < 0.5


def test_other_views_are_compared_with_their_completions() -> None:
    for view in ("aligner", "raw", "full", "slips"):
        env = made(view=view, task=["add", "mul"])
        for number in range(6):
            env.reset(number)
            right = env.step(env.rows[number]["completion"])
            assert right.reward == 1.0 and right.score is not None
            entry = view in ("full", "slips") or env.rows[number].get("direction") == "in"
            assert bool(right.score.parts) == entry
            env.reset(number)
            assert env.step(env.rows[number]["completion"] + "0").reward == 0.0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mode": "runs"}, "did you mean 'run'"),
        ({"calls": "models"}, "did you mean 'model'"),
        ({"view": "scratch"}, "scratch"),
        ({"task": "left_mask", "view": "raw"}, "no test rows of [a-z_]*-raw"),
        ({"task": "sub", "dialect": "published", "mode": "run"}, "runs of published rows"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        made(**settings)
    assert caef_data.environment is environment


def test_a_turing_machine_is_run_too() -> None:
    declaration = {
        "num": 2,
        "max": 4,
        "task": [],
        "machine": [{"name": "flip", "format": "bbchallenge", "table": "1RB1LB_1LA1RZ"}],
    }
    del declaration["task"]
    env = environment(declaration, split="test", mode="run")
    turns = play(env, env.reset(0))
    assert sum(turn.reward for turn in turns) == pytest.approx(1)


def test_settings_in_place_of_a_declaration() -> None:
    own = environment(task="add", max=2, num=3, seed=5)
    assert own.reset(4) == environment({"task": "add", "max": 2, "num": 3, "seed": 5}).reset(4)
    with pytest.raises(UserError, match="settings beside it: instrcted"):
        environment("smoke", instrcted=True)
    with pytest.raises(UserError, match="a declaration and settings beside it: task"):
        environment("smoke", task="add")


@pytest.mark.parametrize("view", ["one_step", "aligner", "nonsense"])
def test_a_run_has_no_view(view: str) -> None:
    with pytest.raises(UserError, match=f"view is '{view}', and an episode of mode run is a whole run"):
        environment(task="add", max=2, num=1, mode="run", view=view)
    assert environment(task="add", max=2, num=1, mode="run", view="full").rows.view == "full"


def test_a_run_has_a_mix_of_whole_runs() -> None:
    """Rows of one_step and slips begin anywhere in a run, with other completions; the others have no n_steps."""
    settings = {"task": ["add", "sub"], "min": 2, "max": 2, "num": 2}
    for view in ("one_step", "slips", "aligner", "raw", "commands", "scratchpad"):
        with pytest.raises(UserError, match=f"mix names add-{view}, and an episode of mode run is a whole run"):
            environment({**settings, "mix": {"sub-full": 1, f"addition-{view}": 1}}, mode="run")
    env = environment({**settings, "mix": {"add": 1, "sub-full": 1}}, mode="run")
    tasks = set()
    for number in range(8):
        turns = play(env, env.reset(number))
        tasks.add(turns[-1].info["task"])
        assert sum(turn.reward for turn in turns) == pytest.approx(1)
    assert tasks == {"add", "sub"}
