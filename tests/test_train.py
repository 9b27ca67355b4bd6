# ruff: noqa: E402  (the imports below are of packages that need not be installed)
"""``caef-data train``: what is refused before training, what is learnt, and that a kill changes nothing of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

for name in ("torch", "transformers", "peft", "accelerate"):
    pytest.importorskip(name, reason="training needs caef-data[train]")

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoTokenizer, T5Config

from caef_data.api import stream
from caef_data.errors import UserError, telling_of_full_disk
from caef_data.eval.checkpoint import find_adapters
from caef_data.eval.tables import read_runs
from caef_data.eval.training import console, loop
from caef_data.eval.training.console import train_with_progress
from caef_data.eval.training.judge import Judge
from caef_data.eval.training.loop import pack
from caef_data.eval.training.plan import cost, make_plan
from caef_data.eval.training.rows import WORK, Job, Stage
from caef_data.eval.training.settings import TrainSettings, train_settings
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import load_declaration
from caef_data.pipelines.plan import make_plan as make_build
from caef_data.tests.checkpoints import VOCABULARY, write_tokenizer
from caef_data.tests.commands import full_disk
from caef_data.tests.sizes import LONG
from caef_data.tests.small_model import END, make_model, make_tokenizer, save

TASKS = 'max = 2\nnum = 4\n[[task]]\ntask = ["add", "left_mask"]\n'
ALONE = 'stages = ["second"]\nsteps = 6\nbatch_tokens = 1200\ndevice_tokens = 700\nsave_every = 2\nrank = 4\n'


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of an untrained model that reads the longest rows with their instructions."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), width=32, positions=2048)
    yield save(tmp_path_factory.mktemp("base"), model, tokenizer)
    torch.set_num_threads(threads)


def declared(folder: Path, base: Path, more: str = ALONE, tasks: str = TASKS) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.toml").write_text(f'{tasks}[train]\nbase_model = "{base}"\nlearning_rate = 0.01\n{more}')
    return str(folder / "mine.toml")


def train(path: str, out: Path) -> None:
    train_with_progress(path, str(out), dry_run=False)


def learnt(out: Path) -> dict[str, Any]:
    """Return the weights of all adapters, in bytes, and all losses."""
    weights = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("adapter_model.safetensors")}
    return weights | {str(path.relative_to(out)): losses(path) for path in out.glob(f"{WORK}/*/{loop.STATE}")}


def losses(path: Path) -> list[tuple[int, float, float]]:
    """Return step, loss and learning rate from a trainer's state."""
    history = json.loads(path.read_text())["log_history"]
    return [(row["step"], row["loss"], row["learning_rate"]) for row in history if "loss" in row]


def ending_at(step: int, end: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen right after a step of the first adapter."""
    inner, left = loop._Watch.on_log, [step]

    def on_log(self: Any, *args: Any, **options: Any) -> None:
        inner(self, *args, **options)
        left[0] -= 1
        if not left[0]:
            end()

    monkeypatch.setattr(loop._Watch, "on_log", on_log)


def test_a_full_disk_is_told_whichever_library_writes(tmp_path: Path) -> None:
    """Some keep the system's number in their text, torch.save says that a position is unexpected."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(bytes(9_000))
    weights = {"w": torch.zeros(2_000)}

    def stream() -> None:
        raise RuntimeError("basic_ios::clear: iostream error")  # torch.save where a disk has less room than a page

    writers: list[Callable[[], object]] = [
        lambda: torch.save(weights, tmp_path / "w.pt"),
        lambda: save_file(weights, tmp_path / "w.safetensors"),
        lambda: shutil.copytree(tmp_path / "large", tmp_path / "copy"),
        stream,
    ]
    for write in writers:
        with pytest.raises(UserError, match="the disk is full\n.*here\n.*make room"), full_disk(4_096):
            with telling_of_full_disk("here", "make room"):
                write()
    with pytest.raises(RuntimeError, match="another"), telling_of_full_disk("here", "make room"):
        raise RuntimeError("another")


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no table [train]"),
        ("[train]\nsteps = 3\n", "no base_model"),
        ('[train]\nbase_model = "b"\nstep = 3\n', "'step' (did you mean 'steps'?)"),
        ('[train]\nbase_model = "b"\nsteps = true\n', "steps is true"),
        ('[train]\nbase_model = "b"\nsteps = 3\nepochs = 1\n', "steps and epochs both say"),
        ('[train]\nbase_model = "b"\ntask = "multiplicaton"\n', "did you mean"),
        ('[train]\nbase_model = "b"\nwhich = "executor"\n', "did you mean 'executors'"),
        ('[train]\nbase_model = "b"\nwhich = "aligners/ad"\n', "did you mean 'aligners/add'"),
        ('[train]\nbase_model = "b"\nlearning_rate = 2\n', "learning_rate is 2"),
        ('[train]\nbase_model = "b"\nmethod = "fulll"\n', "did you mean 'full'"),
        ('[train]\nbase_model = "b"\ndtype = "float16"\n', 'dtype is "float16"'),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TASKS + text)
    with pytest.raises(UserError) as refusal:
        train_settings(str(path))
    assert words in str(refusal.value) and "mine.toml" in str(refusal.value)


def test_tasks_without_rows_or_without_the_adapter_are_refused(tmp_path: Path, base: Path) -> None:
    two = 'which = ["aligners/add", "executors/left_mask"]\n'
    named = [job.name for job in make_plan(*train_settings(declared(tmp_path, base, ALONE + two))).jobs]
    assert named == ["aligners/add", "executors/left_mask"]
    other = 'which = "executors/mul"', "no rows of"
    for more, words in (
        other,
        ('task = "mul"', "no rows of"),
        ('task = "left_mask"\nwhich = "aligners"', "nothing to train"),
    ):
        with pytest.raises(UserError, match=words):
            make_plan(*train_settings(declared(tmp_path, base, more)))


def test_a_base_model_that_is_not_there_is_refused_by_the_name_of_its_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)no base model .*mine.toml, table \[train\], base_model"):
        make_plan(*train_settings(declared(tmp_path, tmp_path / "none")))


def test_what_is_said_of_the_base_model(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Judge, "rows", lambda self: "")
    shutil.copytree(base, tmp_path / "user/name")
    (tmp_path / "user/name/generation_config.json").write_text(f'{{"min_length": 9, "eos_token_id": {END}}}')
    for more in ("", "eval_every = 2\n"):
        said = list[str]()
        make_plan(*train_settings(declared(tmp_path, Path("user/name"), ALONE + more)), said.append)
        first, *others = said
        assert first.endswith("base_model user/name is read from this machine; for the Hub's: hf://user/name")
        assert "--" not in first
        assert [line.partition(" of ")[0] for line in others] == ["min_length 9"] * bool(more)  # where it is asked


def test_an_encoder_decoder_is_refused_before_a_weight_is_read(tmp_path: Path, base: Path) -> None:
    shutil.copytree(base, tmp_path / "t5")
    T5Config(d_model=32, num_layers=1, num_heads=2).save_pretrained(tmp_path / "t5")
    with pytest.raises(UserError, match=r"encoder-decoder \(t5\)"):
        make_plan(*train_settings(declared(tmp_path, tmp_path / "t5")))


def test_a_build_is_the_same_with_and_without_the_table(tmp_path: Path, base: Path) -> None:
    path = declared(tmp_path, base)
    (tmp_path / "plain.toml").write_text(TASKS)
    assert load_declaration(path).identity() == load_declaration(str(tmp_path / "plain.toml")).identity()


def test_a_row_longer_than_the_model_reads_is_refused_before_training(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    short = save(tmp_path / "short", make_model(len(tokenizer), width=32, positions=600), tokenizer)
    with pytest.raises(UserError, match=r"executors/add, first stage, has 1,\d\d\d tokens, the model reads 600"):
        train(declared(tmp_path, short, "steps = 1\n"), tmp_path / "ckpt")
    assert not (tmp_path / "ckpt").exists()
    train_with_progress(declared(tmp_path, short), str(tmp_path / "ckpt"), dry_run=True)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 16.0},
        {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 8.0},
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_rows_whose_positions_would_depend_on_their_neighbours_are_refused(
    tmp_path: Path, base: Path, rope: dict[str, Any]
) -> None:
    shutil.copytree(base, tmp_path / "base")
    config = AutoConfig.from_pretrained(base)
    path = declared(tmp_path, tmp_path / "base")
    for most in (2048, 40):
        config.max_position_embeddings = most if rope["rope_type"] == "dynamic" else 2048
        config.rope_parameters = {**rope, "rope_theta": 10000.0, "original_max_position_embeddings": most}
        config.save_pretrained(tmp_path / "base")
        refused = pytest.raises(
            UserError, match="tokens, beyond 40 the factors of this model's rope depend on the rows"
        )
        with refused if most == 40 else nullcontext():
            make_plan(*train_settings(path))


def test_a_tokenizer_that_cannot_spell_the_rows_is_refused_before_training(tmp_path: Path) -> None:
    """It was trained on, and the evaluation refused it."""
    write_tokenizer(tmp_path / "base", [word for word in VOCABULARY if word != "9"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    save(tmp_path / "base", make_model(len(tokenizer), width=32, positions=2048), tokenizer)
    with pytest.raises(UserError, match="cannot spell the machines' texts: it gives .* back for '9"):
        make_plan(*train_settings(declared(tmp_path, tmp_path / "base")))


def test_the_longest_operands_are_looked_at_wherever_their_rows_come(tmp_path: Path, base: Path) -> None:
    more, grows = 'task = "add"\nsteps = 1\nstages = ["second"]\nbatch_tokens = 300\n', "max = 9\nnum = 4\n[[task]]"
    tasks = f'{grows}\ntask = ["add", "mul"]\n'
    jobs = make_plan(*train_settings(declared(tmp_path, base, more, tasks))).jobs
    for job in jobs:
        own = job.spell(job.stream.__getitems__(range(2000)), "second")
        [stage] = job.stages
        assert stage.rows < 20 and stage.longest >= max(len(prompt) + len(answer) for prompt, answer in own)
    tasks = tasks.replace("[[task]]", "curriculum = {linear = {start = 2, rows = 100000}}\n[[task]]")
    [first, _] = make_plan(*train_settings(declared(tmp_path, base, more, tasks))).jobs
    assert first.stages[0].longest < 0.8 * jobs[0].stages[0].longest  # two digits come first


def test_a_budget_says_how_many_rows_an_epoch_has(tmp_path: Path, base: Path) -> None:
    path = declared(tmp_path, base, ALONE, 'rows = 900\nmax = 2\ntask = "add"\n')
    [job] = [one for one in make_plan(*train_settings(path)).jobs if one.name == "executors/add"]
    assert job.stream.epoch_rows == stream(path).epoch_rows != stream(task="add", max=2).epoch_rows


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = declared(tmp_path, base, "epochs = 2\nbatch_tokens = 3000\n")
    train_with_progress(path, str(tmp_path / "ckpt"), dry_run=True)
    told = capsys.readouterr().out
    plan = make_plan(*train_settings(path))
    trained, memory, seconds = cost(plan)
    assert {job.name for job in plan.jobs} == {"executors/add", "aligners/add", "executors/left_mask"}
    assert all(job.name in told and f"{job.stages[0].steps:,}" in told for job in plan.jobs)
    assert f"{trained:,} weights learn" in told and "hours" in told and "nothing was trained" in told
    for job in plan.jobs:
        for stage in job.stages:
            assert 0 <= stage.steps * stage.rows - 2 * job.stream.epoch_rows < stage.rows
            read = [len(prompt) + len(answer) for prompt, answer in job[0]]
            assert stage.longest >= max(read) or stage.name == "second"
        first, second = job.stages
        assert second.first == first.steps * first.rows and second.mean < first.mean
    assert memory > 4 * trained > 0 and seconds > 0
    assert not (tmp_path / "ckpt").exists()


# What is learnt -----------------------------------------------------------------------------------------------------


def test_rows_are_read_in_turn_each_once_with_the_instruction_in_the_first_stage(tmp_path: Path, base: Path) -> None:
    path = declared(tmp_path, base, "steps = 2\nbatch_tokens = 5000\ndevice_tokens = 2600\n")
    job = make_plan(*train_settings(path)).jobs[1]
    decode = job.tokens.tokenizer.decode
    number = 0
    for item in range(len(job)):
        first = item < job.stages[0].steps * job.parts
        for prompt, answer in job[item]:
            row = job.stream[number]
            assert decode(prompt) == (row["instruction"] if first else "") + row["prompt"]
            assert decode(answer[:-1]) == row["completion"] and answer[-1] == END
            number += 1
    assert job.parts == 2 and number == sum(stage.steps * stage.rows for stage in job.stages)
    assert [*job[3]] == [*make_plan(*train_settings(path)).jobs[1][3]]


def test_rows_of_a_line_do_not_see_each_other_and_losses_are_those_of_each_row_alone() -> None:
    model = make_model(40, width=32)
    rows = [([3, 4, 5, 6, 7, 8], [9, 10, END]), ([11], [12, END]), ([13, 14, 15], [16, END]), ([17, 18], [END])]
    packed, padded = pack(rows), pack(rows, together=False)
    assert len(packed["labels"]) < len(rows) == len(padded["labels"])

    def losses(batch: dict[str, torch.Tensor]) -> dict[tuple[int, ...], float]:
        logits, labels = loop.learnt_logits(model, batch)
        each = cross_entropy(logits, labels, reduction="none")
        ends = (labels == END).nonzero().flatten().tolist()
        begins = [0, *(end + 1 for end in ends[:-1])]
        pairs = zip(begins, ends, strict=True)
        return {tuple(labels[a : b + 1].tolist()): each[a : b + 1].sum().item() for a, b in pairs}

    found, alone = losses(packed), losses(padded)
    assert found.keys() == alone.keys() == {tuple(answer) for _, answer in rows}
    for prompt, answer in rows:
        ids = torch.tensor([[*prompt, *answer]])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        plain = model(input_ids=ids, labels=labels).loss.item() * len(answer)  # the library's own mean
        assert found[tuple(answer)] == pytest.approx(plain, rel=1e-5)
        assert alone[tuple(answer)] == pytest.approx(plain, rel=1e-5)
    assert loop.keeps_rows_apart(model, rows)


def test_a_model_whose_rows_would_see_each_other_gets_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(40, width=32)
    inner = model.forward
    rows = [([3, 4, 5, 6, 7, 8], [9, 10, END]), ([11, 12], [12, END])]
    monkeypatch.setattr(model, "forward", lambda position_ids, **options: inner(**options))  # it ignores positions
    assert not loop.keeps_rows_apart(model, rows)


@pytest.mark.long
def test_adapters_are_trained_and_lie_where_evaluation_looks(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = declared(tmp_path, base, ALONE.replace("steps = 6", "steps = 12"))
    train(path, tmp_path / "ckpt")
    found = find_adapters(tmp_path / "ckpt", None)
    assert {*found.adapters} == {"executors/add", "aligners/add", "executors/left_mask"}
    assert Path(found.base) == base.resolve()
    for log in (tmp_path / "ckpt").glob(f"{WORK}/*/{loop.STATE}"):
        steps, each, _ = zip(*losses(log), strict=True)
        assert [*steps] == [*range(1, 13)]
        assert sum(each[-3:]) < 0.985 * sum(each[:3]), log
    assert not [*(tmp_path / "ckpt").rglob("checkpoint-*")]
    assert len({path.stat().st_mode for path in found.adapters["executors/add"].path.iterdir()}) == 1  # as all may read
    before = learnt(tmp_path / "ckpt")
    train(path, tmp_path / "ckpt")
    assert ": trained before" in capsys.readouterr().out and learnt(tmp_path / "ckpt") == before


@pytest.mark.long
def test_evaluations_on_the_way_are_runs_and_the_best_adapter_is_kept(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ALONE.replace("steps = 6", "steps = 5") + 'task = "add"\nwhich = "aligners"\n'
    plain = declared(tmp_path / "plain", base, more)
    asking = f'eval_every = 2\neval_limit = 3\ndata = "{tmp_path / "data"}"\nresults = "{tmp_path / "results"}"\n'
    path = declared(tmp_path, base, more + asking)
    with pytest.raises(UserError, match="no dataset here"):
        train(path, tmp_path / "ckpt")
    build(make_build(load_declaration(path)), tmp_path / "data", workers=1)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # right after the second evaluation
        ending_at(3, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        train(path, tmp_path / "ckpt")
    train(path, tmp_path / "ckpt")
    rows = read_runs(tmp_path / "results")
    assert {row["name"] for row in rows} == {f"aligners-add-step-{step}" for step in (2, 4, 5)}
    assert all(row["status"] == "finished" and row["calls"] > 0 for row in rows)
    said = capsys.readouterr().err
    assert "aligners-add-step-4: 0.00% of 6 right; by digits 2: 0.0%" in said
    assert "aligners/add as after step 2, right by digits (learnt: up to 2):\n          2    0.0% of      6\n" in said
    kept = find_adapters(tmp_path / "ckpt", None).adapters["aligners/add"]
    [best] = [row for row in rows if kept.hashed.sha256 in str(row["adapters"])]
    assert best["name"] == "aligners-add-step-2"  # of equals the first
    train(plain, tmp_path / "without")
    same = [*learnt(tmp_path / "ckpt").items()], [*learnt(tmp_path / "without").items()]
    assert [text for name, text in same[0] if name.endswith(loop.STATE)] == [
        text for name, text in same[1] if name.endswith(loop.STATE)
    ]
    patient = declared(tmp_path / "patient", base, more + asking + "patience = 1\n")
    train(patient, tmp_path / "early")
    assert len(losses(tmp_path / "early" / WORK / "aligners-add" / loop.STATE)) == 4
    shutil.rmtree(tmp_path / "data")
    build(
        make_build(load_declaration(declared(tmp_path / "else", base, "", TASKS + "num_test = 3\n"))), tmp_path / "data"
    )
    with pytest.raises(UserError, match="aligners-add was begun in this folder: other rows to learn or to ask"):
        train(path, tmp_path / "ckpt")


def test_what_was_trained_is_asked_in_its_stage_and_through_its_template(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ALONE.replace('"second"', '"first"') + 'template = "Q: {prompt}"\nwhich = "executors/add"\n'
    plan = make_plan(*train_settings(declared(tmp_path, base, more), "ckpt"))
    assert Judge(plan.settings, plan.jobs[0])._asked(backend="oracle").stage == "first"
    console._print_end(plan, trained=True)
    assert "eval --adapters ckpt --template 'Q: {prompt}' --stage first --data DIR" in capsys.readouterr().out
    both = TrainSettings(base_model=str(base), stages=("first", "second"))
    assert Judge(both, plan.jobs[0])._asked(backend="oracle").stage == "second"


@pytest.mark.parametrize("method", ["one", pytest.param("full", marks=pytest.mark.long)])
def test_one_adapter_or_one_model_learns_all_tasks_and_goes_on_after_a_stop(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    more = ALONE.replace("steps = 6", "steps = 4") + f'method = "{method}"\n'
    asking = f'eval_every = 4\neval_limit = 2\ndata = "{tmp_path / "data"}"\nresults = "{tmp_path / "results"}"\n'
    path = declared(tmp_path, base, more + asking)
    build(make_build(load_declaration(path)), tmp_path / "data", workers=1)
    train(path, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        ending_at(2, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        train(path, tmp_path / "ckpt")
    train(path, tmp_path / "ckpt")
    [name] = {"one": ["all"], "full": ["model"]}[method]
    [(weights, first)] = [*safetensors(tmp_path / "whole" / name).items()]
    assert safetensors(tmp_path / "ckpt" / name) == {weights: first}
    assert learnt(tmp_path / "whole") == learnt(tmp_path / "ckpt")
    [run] = read_runs(tmp_path / "results")  # the same weights are the same run
    assert run["name"] == f"{name}-step-4"
    if method == "one":
        found = find_adapters(tmp_path / "ckpt", None)
        assert {"executors/add", "aligners/add", "executors/left_mask", "executors/div"} <= {*found.adapters}
        assert len({adapter.path for adapter in found.adapters.values()}) == 1
        shutil.copytree(tmp_path / "ckpt/all", tmp_path / "ckpt/executors/add")
        said = list[str]()
        assert find_adapters(tmp_path / "ckpt", None, say=said.append).adapters["executors/add"].path.name == "add"
        assert said == ["executors/add: asked for their tasks, in place of all/"]
    else:
        changed = [*safetensors(base).values()] != [first]
        names = {path.name for path in base.glob("*tokenizer*")}
        assert names and all((tmp_path / "ckpt/model" / one).read_bytes() == (base / one).read_bytes() for one in names)
        assert changed and find_adapters(None, str(tmp_path / "ckpt" / name)).base == tmp_path / "ckpt" / name


def safetensors(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_what_one_model_learns_is_the_declared_mix_or_each_task_and_kind_alike(tmp_path: Path, base: Path) -> None:
    def shares(more: str, tasks: str = TASKS) -> dict[tuple[str, str], float]:
        [job] = make_plan(*train_settings(declared(tmp_path, base, more + 'method = "one"\n', tasks))).jobs
        rows = job.stream.__getitems__(range(900))
        kinds = [(row["task"], row["view"]) for row in rows]
        return {kind: round(kinds.count(kind) / len(kinds), 2) for kind in {*kinds}}

    third = pytest.approx(1 / 3, abs=0.05)
    alike = {("add", "one_step"): third, ("add", "aligner"): third, ("left_mask", "one_step"): third}
    assert shares(ALONE) == alike
    mixed = TASKS.replace("[[task]]", "[mix]\nadd-raw = 3\nleft_mask = 1\n[[task]]", 1)
    half = pytest.approx(0.75, abs=0.05), pytest.approx(0.25, abs=0.05)
    assert shares(ALONE, mixed) == {("add", "raw"): half[0], ("left_mask", "one_step"): half[1]}
    with pytest.raises(UserError, match="task and mix both say"):
        shares(ALONE + 'task = "add"\n', mixed)


def test_the_curve_at_the_end_sets_lengths_that_were_not_learnt_apart() -> None:
    def curve(longest: int) -> list[str]:
        job = SimpleNamespace(name="executors/add", stages=[Stage("second", 1, 1, 0, 1, 1, longest)])
        judge = Judge(TrainSettings(base_model="b", eval_every=5), cast("Job", job))
        lengths = [[length, max(0, 40 - length), 40] for length in range(1, 41)]
        return [*judge.curve([{"step": 1, "loss": 1.0}, {"step": 15, "eval_accuracy": 0.5, "eval_lengths": lengths}])]

    title, *lines = curve(12)
    assert "executors/add as after step 15" in title and "up to 12" in title
    assert lines[0].split() == ["1-2", "96.2%", "of", "80", "#" * 19]
    assert lines[6].split()[:4] == ["13-15", "65.0%", "of", "120"]
    assert ["longer" in line for line in lines] == [False] * 6 + [True] * 10 and lines[-1].split()[0] == "40"
    assert len(curve(99)) == 11 and not any("longer" in line for line in curve(99))


def test_the_best_adapter_is_kept_whenever_training_is_stopped(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies, kept = {1: 0.1, 2: 0.6, 3: 0.2, 4: 0.6, 5: 0.3, 6: 0.1}, dict[int, bytes]()

    def ask(judge: Judge, step: int, save: Callable[[str], object], say: object) -> dict[str, Any]:
        save(str(tmp_path / "asked"))
        saved = (tmp_path / "asked" / "adapter_model.safetensors").read_bytes()
        assert kept.setdefault(step, saved) == saved  # also after a stop
        return {"eval_accuracy": accuracies[step], "eval_lengths": [(1, 1, 2)]}

    monkeypatch.setattr(Judge, "ask", ask)
    monkeypatch.setattr(Judge, "rows", lambda judge: "the same rows")
    more = ALONE + 'task = "add"\nwhich = "aligners"\neval_every = 1\n'
    path, patient = declared(tmp_path, base, more), declared(tmp_path / "patient", base, more + "patience = 2\n")
    place = Path("aligners/add/adapter_model.safetensors")
    train(path, tmp_path / "whole")
    assert [*kept] == [*accuracies] and (tmp_path / "whole" / place).read_bytes() == kept[2]  # of equals the first
    for step in (4,) if not LONG else (2, 4):
        out = tmp_path / f"stopped-{step}"
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            ending_at(step, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
            train(path, out)
        out = out.rename(tmp_path / f"moved-{step}")
        train(path, out)
        assert (out / place).read_bytes() == kept[2]
    for mine, steps in [(patient, 4), *([(path, 6)] if LONG else [])]:  # killed as the adapter is put in its place
        out = tmp_path / f"ended-{steps}"
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(loop, "_finish", lambda *_: 1 / 0)
            train(mine, out)
        train(mine, out)
        assert (out / place).read_bytes() == kept[2]
        assert [step for step, *_ in losses(out / WORK / "aligners-add" / loop.STATE)] == [*range(1, steps + 1)]


# Stopped, and going on ----------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys, pytest, torch
from pathlib import Path
from caef_data.tests.test_train import ending_at, train
torch.set_num_threads(1)
ending_at(5, lambda: os.kill(os.getpid(), signal.SIGKILL), pytest.MonkeyPatch())
train(sys.argv[1], Path(sys.argv[2]))
"""


def test_after_a_kill_the_same_command_goes_on_to_the_same_losses_and_weights(tmp_path: Path, base: Path) -> None:
    path = declared(tmp_path, base, ALONE + 'task = "add"\nwhich = "executors"\n')
    train(path, tmp_path / "whole")
    words = [sys.executable, "-c", KILLED, path, str(tmp_path / "killed")]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    work = tmp_path / "killed" / WORK / "executors-add"
    assert len(losses(work / "checkpoint-4" / loop.STATE)) == 4
    (work / "checkpoint-5").mkdir()  # as if it had been killed while it wrote this one
    (work / "checkpoint-5" / loop.STATE).write_text('{"epoch": 0.8')
    train(path, tmp_path / "killed")
    assert learnt(tmp_path / "killed") == learnt(tmp_path / "whole")
    assert {*find_adapters(tmp_path / "killed", None).adapters} == {"executors/add"}


def test_ctrl_c_keeps_the_step_and_other_settings_or_folders_are_refused(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ALONE + 'task = "add"\nwhich = "aligners"\n'
    path, out = declared(tmp_path, base, more), tmp_path / "ckpt"
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        ending_at(3, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        train(path, out)
    assert end.value.code == 130 and f"go on with: caef-data train {path}" in capsys.readouterr().err
    work = out / WORK / "aligners-add"
    state = loop.last_state(work)
    assert state is not None and len(losses(state / loop.STATE)) in (3, 4)
    with pytest.raises(UserError, match="another training of aligners-add was begun in this folder: seed was 42, is 7"):
        train(declared(tmp_path / "other", base, more + "seed = 7\n"), out)
    plan = make_plan(*train_settings(path, str(out)))
    with console._held(plan), pytest.raises(UserError, match="another training is at work"):
        train(path, out)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):  # at its very end
        patch.setattr(loop, "_finish", lambda *_: 1 / 0)
        train(path, out)
    assert (work / "checkpoint-6" / loop.STATE).exists() and not (out / "aligners").exists()
    train(path, out)
    train(path, tmp_path / "whole")
    assert learnt(out) == learnt(tmp_path / "whole")
    further = ALONE.replace("steps = 6", "steps = 1") + 'task = "left_mask"\n'  # other settings, in the same folder
    train(declared(tmp_path / "further", base, further), out)
    assert {*find_adapters(out, None).adapters} == {"aligners/add", "executors/left_mask"}
    assert learnt(out).items() > learnt(tmp_path / "whole").items()
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "ckpt"):
        with pytest.raises(OSError, match="file"):  # which a command tells in a line
            train(path, place)
    (tmp_path / "there" / "aligners" / "add").mkdir(parents=True)
    with pytest.raises(UserError, match="an adapter already"):
        train(path, tmp_path / "there")
    assert not (tmp_path / "there" / WORK).exists()


def test_settings_have_one_order() -> None:
    one = TrainSettings(base_model="b", task=("add", "addition"), which=("aligners", "executors"), stages="second")  # type: ignore[arg-type]
    assert one == TrainSettings(base_model="b", task=("add",), which=("all",), stages=("second",))  # type: ignore[arg-type]
