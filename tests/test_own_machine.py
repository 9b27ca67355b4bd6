"""A machine of one's own becomes a task by its class alone: this file defines ``max``, the larger of two numbers.

    MAX, q3,  [HEAD1]|2|1 [HEAD2]|9 True |2[OUTPUT]
    CMD [OUTPUT] 1, [OUTPUT] RIGHT, [HEAD1] RIGHT, q3

q1 compares from the units up, q2 brings the heads back, q3 copies the larger number.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from caef_data.errors import UserError
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags, parse_declaration
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.sampling.split import sides
from caef_data.pipelines.settings import Declaration, TaskSettings
from caef_data.pipelines.verify import verify
from caef_data.tm import align_in, align_out, columns, machine, tasks, transition, transitions
from caef_data.tm.basic import BasicMachine, Configuration, Said, View
from caef_data.tm.classes import Law, Variant
from caef_data.tm.columns import Bool, Operands
from caef_data.tm.machine import REGISTRY, Machine

HEADS = "{a_left}[HEAD1]{a_right} {b_left}[HEAD2]{b_right}"


class FirstLarger(Law):
    """a > b, or with ``negated`` a <= b: a law of one's own, which worker processes must know too."""

    def __init__(self, negated: bool) -> None:
        self.negated = negated

    def holds(self, operands: Operands) -> Bool:
        larger: Bool = columns.compare(operands.a, operands.second) > 0
        return larger != self.negated


VARIANTS = (Variant("first", 1, FirstLarger(False)), Variant("second", 1, FirstLarger(True)))


class Max(BasicMachine):
    """The larger of two numbers."""

    name = "max"
    sign = "max"
    commutative = True
    states = {
        "q0": "MAX, q0, [HEAD1] {a}[HEAD2] {b} [OUTPUT]",
        "q1": f"MAX, q1,  {HEADS} [OUTPUT]{{flag}}",
        "q2": f"MAX, q2,  {HEADS} [OUTPUT]{{flag}}",
        "q3": f"MAX, q3,  {HEADS} {{flag}} {{out}}[OUTPUT]",
        "qH": f"MAX, qH,  {HEADS} {{out}}",
    }
    commands = {
        "start": "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] True, q1",
        "compare": "CMD {move_a}{move_b}{write}q1",
        "turn": "CMD q2",
        "back": "CMD {move_a}{move_b}q2",
        "begin": "CMD q3",
        "copy": "CMD [OUTPUT] {digit}, [OUTPUT] RIGHT, {move_a}{move_b}q3",
        "close": "CMD [OUTPUT], qH",
    }

    def decide(self, now: Configuration) -> Said:
        if now.state == "q0":
            return "start", {}
        if now.state == "q2":
            a, b = now.heads
            return ("back", moves(a > 0, b > 0, "LEFT")) if a or b else ("begin", {})
        x, y = now.read(0), now.read(1)
        if now.state == "q3":
            first = now.flag == "True"
            digit = x if first else y
            return ("copy", {"digit": digit, **moves(first, not first, "RIGHT")}) if digit else ("close", {})
        if not x and not y:
            return "turn", {}
        differ = int(x or 0) - int(y or 0)
        write = f"[OUTPUT] {differ > 0}, " if differ else ""
        return "compare", {"write": write, **moves(bool(x), bool(y), "RIGHT")}

    def answer(self, a: int, b: int) -> int:
        return max(a, b)

    def num_steps(self, a: int, b: int) -> int:
        return self.max_num_steps(len(str(a)), len(str(b)))

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 3 * max(len_a, len_b) + 4

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        return 2 * num if len_a == len_b else num

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        return VARIANTS if len_a == len_b else VARIANTS[:1] if len_a > len_b else VARIANTS[1:]


def moves(a: bool, b: bool, where: str) -> dict[str, str]:
    return {"move_a": f"[HEAD1] {where}, " if a else "", "move_b": f"[HEAD2] {where}, " if b else ""}


# Worker processes of a build load this file and keep the machine; here it must not stay: other tests look at all tasks.
if multiprocessing.parent_process() is None:
    MAX = REGISTRY.pop("max")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(REGISTRY, "max", MAX)
    yield


SETTINGS: dict[str, Any] = {
    "min": 1,
    "max": 5,
    "num": 12,
    "splits": ["train", "test", "stress"],
    "rows_per_shard": 400,
}


def declared(**more: Any) -> Declaration:
    return from_flags(["max"], **{**SETTINGS, **more})


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def rows_of(folder: Path, config: str) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob(f"{config}/*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_without_its_file_the_machine_is_unknown_everywhere() -> None:
    assert "max" not in tasks()
    with pytest.raises(UserError, match="max"):
        declared()
    with pytest.raises(UserError, match="there is no task"):
        transitions("max", 1, 2)


@pytest.mark.usefixtures("registered")
def test_defining_the_class_makes_it_a_task_of_the_python_interface() -> None:
    assert "max" in tasks()
    for a, b in ((0, 0), (3, 5), (5, 3), (120, 99), (99, 120), (10**60, 10**60 - 1)):
        steps = list(transitions("max", a, b))
        assert len(steps) == MAX.num_steps(a, b)
        assert [transition("max", a, b, k) for k in range(len(steps))] == steps
        assert all(now.completion == then.prompt for now, then in zip(steps, steps[1:], strict=False))
        assert align_in(f"{a}max{b}=") == steps[0].prompt
        assert align_out("max", a, b) == (steps[-1].completion, f"{a}max{b}={max(a, b)}")
    assert sides("max", ["12", "90"], ["90", "12"]) in (["train"] * 2, ["test"] * 2)


@pytest.mark.usefixtures("registered")
def test_it_is_declared_like_any_other_task() -> None:
    assert TaskSettings(task="max", min=1, max=5, num=12).task == "max"
    assert parse_declaration('[[task]]\ntask = "max"\nmax = 5\n').tasks[0].task == "max"
    assert "max" in [settings.task for settings in from_flags(["all"], max=2).tasks]
    with pytest.raises(UserError, match="did you mean 'max'"):
        from_flags(["maxx"], max=2)


@pytest.mark.usefixtures("registered")
def test_it_is_built_in_worker_processes_into_the_same_bytes_and_verified(tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    results = build(make_plan(declared()), together, workers=2)
    assert sum(result.built for result in results) > 4
    report = verify(together, workers=2)
    assert report.ok, report.findings[:3]
    assert report.rows_checked == sum(result.rows for result in results)
    assert any("max" in note for note in report.notes)
    build(make_plan(declared()), alone, workers=1)
    assert files_of(alone) == files_of(together)
    assert {path.name for path in together.glob("max-*")} == {
        "max-one_step",
        "max-full",
        "max-aligner",
        "max-raw",
    }

    rows = rows_of(together, "max-one_step")
    for row in rows:
        step = transition("max", row["a"], row["b"], row["step"])
        assert (row["prompt"], row["completion"]) == (step.prompt, step.completion)
        assert (row["state"], row["next_state"], row["call"]) == (step.state, step.next_state, None)
        assert row["n_steps"] == 3 * max(row["len_a"], row["len_b"]) + 4
        if row["variant"] in ("first", "second"):
            assert row["variant"] == ("first" if int(row["a"]) > int(row["b"]) else "second")
        assert "larger of two numbers" in row["instruction"]
    for row in rows_of(together, "max-raw"):
        assert (row["prompt"], row["completion"]) == (
            f"{row['a']}max{row['b']}=",
            str(max(int(row["a"]), int(row["b"]))),
        )


@pytest.mark.usefixtures("registered")
def test_its_classes_follow_its_own_counts_and_variants(tmp_path: Path) -> None:
    build(make_plan(declared(views=["raw"], splits=["train"], rows_per_shard=None)), tmp_path, workers=1)
    counts: dict[tuple[int, int, str], int] = {}
    for row in rows_of(tmp_path, "max-raw"):
        key = row["len_a"], row["len_b"], row["variant"]
        counts[key] = counts.get(key, 0) + 1
    for a in range(1, 6):
        for b in range(1, 6):
            names = ("first", "second") if a == b else ("first",) if a > b else ("second",)
            assert {name: counts.pop((a, b, name)) for name in names} == dict.fromkeys(names, 12)
    assert not counts


@pytest.mark.usefixtures("registered")
def test_another_file_of_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"max": 1, "num": 2, "splits": ["train"], "views": ["raw"]}
    build(make_plan(declared(**asked)), tmp_path, workers=1)
    monkeypatch.setitem(MAX.__dict__, "_file_digest", "0123456789abcdef")
    with pytest.raises(UserError, match=r"other settings: the machine's file '\S+test_own_machine.py' was another one"):
        build(make_plan(declared(**asked)), tmp_path, workers=1)


@pytest.mark.usefixtures("registered")
def test_verification_of_it_notices_a_wrong_row(tmp_path: Path) -> None:
    build(make_plan(declared(splits=["train"], views=["one_step"])), tmp_path, workers=1)
    path = sorted(tmp_path.glob("max-one_step/*.parquet"))[0]
    table = pq.read_table(path)
    texts = table.column("completion").to_pylist()
    texts[3] = texts[3].replace("[HEAD1]", "[HEAD2]", 1)
    at = table.schema.get_field_index("completion")
    pq.write_table(table.set_column(at, table.schema.field(at), [texts]), path)
    report = verify(tmp_path, workers=1)
    assert [(one.path, one.row) for one in report.findings if one.kind == "row"] == [
        (str(path.relative_to(tmp_path)), 3)
    ]


# ------------------------------------------------------------------------------------------------- one name, one file

OTHER = '''
from caef_data.tm.greater_than import GreaterThan

class {cls}(GreaterThan):
    """Another machine."""

    name = "{name}"
    sign = None
'''


def load(path: Path, module: str) -> None:
    spec = spec_from_file_location(module, path)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module_from_spec(spec))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["max", "add", "greater_than"])
def test_a_second_machine_of_a_name_from_another_file_is_refused(name: str, tmp_path: Path) -> None:
    before = dict(REGISTRY)
    path = tmp_path / "other.py"
    for cls in ("Another", type(machine(name)).__qualname__):
        path.write_text(OTHER.format(cls=cls, name=name))
        with pytest.raises(UserError, match=f"two machines are called '{name}'"):
            load(path, "other_machine")
    assert before == REGISTRY


def test_loading_one_file_twice_is_no_second_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.py"
    path.write_text(OTHER.format(cls="Own", name="my_own"))
    try:
        for _ in range(2):
            spec = spec_from_file_location("my_own_machine", path)
            assert spec is not None and spec.loader is not None
            monkeypatch.setitem(sys.modules, "my_own_machine", module_from_spec(spec))
            spec.loader.exec_module(sys.modules["my_own_machine"])
            assert machine("my_own").source == str(path)
    finally:
        REGISTRY.pop("my_own", None)


def test_a_machine_whose_name_cannot_be_that_of_a_folder() -> None:
    for name in ("../x", "A", "a-b", ""):
        with pytest.raises(UserError, match="cannot be the name of a machine"):
            type("Own", (Machine,), {"name": name})


def test_a_machine_written_for_0_1_0_gives_the_same_rows_as_its_short_form() -> None:
    """README's machine of 0.1.0, which names commands and counts its own steps, and as the docs have it now."""
    path = Path(__file__).parent / "data" / "double_0_1_0.py"
    page = (Path(__file__).parents[1] / "docs" / "machines-of-your-own.md").read_text(encoding="utf-8")
    texts = []
    for code in (path.read_text(), page.split("```python\n# tm/double.py\n")[1].split("```")[0]):
        space: dict[str, Any] = {"__name__": "own_double"}
        exec(compile(code, "double", "exec"), space)
        found = REGISTRY.pop("double")
        assert isinstance(found, BasicMachine) and found.table is not None
        numbers = [0, 7, 47, 5, 10**30 - 1, 123456789]
        batch = found.batch(Operands(columns.Number.of(numbers), None), "consistent")
        rows = batch.every()
        texts.append((batch.prompts(rows).text.to_pylist(), batch.completions(rows).text.to_pylist()))
        walked = [step for number in numbers for step in found.transitions(number, 0, "consistent")]
        assert texts[-1] == ([step.prompt for step in walked], [step.completion for step in walked])
        assert [found.answer(number, 0) for number in numbers] == [2 * number for number in numbers]
    assert texts[0] == texts[1]


TWICE = (Path(__file__).parents[1] / "docs" / "machines-of-your-own.md").read_text("utf-8")
TWICE = TWICE.split("```python\n# tm/double.py\n")[1].split("```")[0].replace("double", "twice")
MISTAKES = [
    ("[HEAD] RIGHT, q1", "[HEAD] RIGTH, q1", r"q1'?: '\[HEAD\] RIGTH' is no action \(did you mean '\[HEAD\] RIGHT'"),
    ("[OUTPUT] {view.carry}", "[OUTPT] {view.carry}", r"'\[OUTPT\] \d' is no action \(did you mean '\[OUTPUT\]"),
    ("[OUTPUT] {digit}", "[OUTPUT] {digit}{digit}", r"'\[OUTPUT\] \d\d' is no action"),
    ("[HEAD] RIGHT, q1", "[HEAD2] RIGHT, q1", r"'\[HEAD2\] RIGHT' is no action"),
    ("[C], qH", "[C], halt", "must begin with 'CMD ' and end with one of the states q0, q1, qH"),
    ("[C], qH", "[C]", "must begin with 'CMD ' and end with one of the states q0, q1, qH"),
    ('"CMD [C] 0', '"CDM [C] 0', "in state q0, but 'CDM .* must begin with 'CMD '"),
    ('return f"CMD [C]', 'f"CMD [C]', "in state q1, but None: TypeError"),
    ('return "CMD [C] 0, [HEAD] RIGHT, q1"', 'return "start", {}', r"in state q0, but \('start', {}\): KeyError"),
    ("int(view.carry)", "int(view.flag)", "in state q1, but None: invalid literal for int"),
]


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_command_that_is_none_is_refused_wherever_a_run_meets_it(
    right: str, wrong: str, said: str, looks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such text was executed as if it were a state or a digit: rows were built, and verified as right."""
    code = TWICE.replace(right, wrong)
    if looks:  # at its whole tape: it is walked step by step
        code = code.replace("view: View) -> str:", "view: View, _=None) -> str:\n        view.tapes")
    assert code != TWICE
    (tmp_path / "own.py").write_text(code)
    spec = spec_from_file_location("own_twice", tmp_path / "own.py")
    assert spec is not None and spec.loader is not None
    monkeypatch.setitem(sys.modules, "own_twice", module_from_spec(spec))
    try:
        spec.loader.exec_module(sys.modules["own_twice"])
        with pytest.raises(UserError, match=said) as refused:
            list(transitions("twice", 47))
        assert refused.value.where is not None and str(tmp_path / "own.py") in refused.value.where
        with pytest.raises(UserError, match=said):
            build(make_plan(from_flags(["twice"], max=2, num=3)), tmp_path / "data", workers=1)
        assert not (tmp_path / "data" / "manifest.json").exists()
    finally:
        REGISTRY.pop("twice", None)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ('"qH"', '"qh"', "the machine twice has no state qH"),
        ("{a_right}", "{a_rigth}", "has a part 'a_rigth' .did you mean 'a_right'"),
        ("def decide", "def decided", "the machine twice does not define decide .did you mean 'decided'"),
        ('"twice"', '"Twice"', "'Twice' cannot be the name of a machine"),
    ],
)
def test_a_class_that_is_no_machine_is_refused_when_it_is_defined(
    right: str, wrong: str, said: str, tmp_path: Path
) -> None:
    before = dict(REGISTRY)
    (tmp_path / "own.py").write_text(TWICE.replace(right, wrong))
    with pytest.raises(UserError, match=said):
        load(tmp_path / "own.py", "own_twice")
    assert before == REGISTRY


def test_other_names_of_0_1_0_are_known_or_refused() -> None:
    """``refusal`` goes on as ``domain_error``; families are named now: a method that gives them is no longer asked."""
    own = type("Own", (Max,), {"refusal": lambda self, a, b: "a is 3" if a == 3 else None})
    assert own().domain_error(3, 1) == "a is 3" and own().domain_error(1, 3) is None
    with pytest.raises(UserError, match="families is no longer asked for: see Machine.stress"):
        type("Own", (Max,), {"families": lambda self: ()})


@pytest.mark.usefixtures("registered")
def test_laws_and_families_that_nobody_knows_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, said in (("law", "at_least_c", "did you mean 'at_least_b'"), ("stress", "pair", "'pairs'")):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=said):
            patch.setattr(Max, name, value)
            patch.delattr(Max, "variants")
            make_plan(declared())


class Turning(BasicMachine):
    """Goes to the end of a number and copies it on the way back: its head goes left."""

    name = "turning"
    unary = True
    states = {
        "q0": "TURNING, q0, [HEAD] {a} [OUTPUT]",
        "q1": "TURNING, q1,  {a_left}[HEAD]{a_right} {out}[OUTPUT]",
        "q2": "TURNING, q2,  {a_left}[HEAD]{a_right} {out}[OUTPUT]",
        "qH": "TURNING, qH,  {a_left}[HEAD]{a_right} {out}",
    }

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD [HEAD] RIGHT, q1"
        if view.state == "q1":
            return "CMD [HEAD] RIGHT, q1" if view.symbol else "CMD [HEAD] LEFT, q2"
        if not view.symbol:
            return "CMD [OUTPUT], qH"
        return f"CMD [OUTPUT] {view.symbol}, [OUTPUT] RIGHT, [HEAD] LEFT, q2"


if multiprocessing.parent_process() is None:
    TURNING = REGISTRY.pop("turning")


def test_names_that_are_gone_are_ignored_and_said(registered: None) -> None:
    """``num_steps`` of 0.1.0 counted for itself; a run counts now, and the plan names what it ignores."""
    plan = make_plan(from_flags(["max"], min=1, max=2, num=1, views=["one_step"]))
    assert "max: ignored, since its run says it: num_steps" in plan.notes
    assert "max: it looks at heads, so its rows are made step by step, which is slower" in plan.notes
    assert MAX.num_steps(47, 38) == len(list(MAX.transitions(47, 38, "consistent")))
    assert not TURNING.notes()


def test_heads_that_go_back_are_followed_in_columns() -> None:
    numbers = [0, 7, 47, 120, 10**20, 123456789]
    assert isinstance(TURNING, BasicMachine) and TURNING.table is not None and not TURNING.table.in_step
    batch = TURNING.batch(Operands(columns.Number.of(numbers), None), "consistent")
    rows = batch.every()
    walked = [step for number in numbers for step in TURNING.transitions(number, 0, "consistent")]
    assert batch.prompts(rows).text.to_pylist() == [step.prompt for step in walked]
    assert batch.completions(rows).text.to_pylist() == [step.completion for step in walked]
    assert [TURNING.halted(number, 0) for number in numbers] == batch.halted().to_pylist()
