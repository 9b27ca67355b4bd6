"""``eval --stage first``: the instruction of its machine stands before each prompt, as in the first training stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

torch = pytest.importorskip("torch", reason="a model needs torch, transformers and peft")
pytest.importorskip("peft", reason="a model needs torch, transformers and peft")

from caef_data.errors import UserError  # noqa: E402
from caef_data.eval import inputs  # noqa: E402
from caef_data.eval.backends import local  # noqa: E402
from caef_data.eval.backends import prefix as shared  # noqa: E402
from caef_data.eval.backends.local import CACHED, TransformersBackend  # noqa: E402
from caef_data.eval.backends.oracle import OracleBackend  # noqa: E402
from caef_data.eval.backends.tokens import Tokens, load_tokenizers  # noqa: E402
from caef_data.eval.calls import BASE, Request  # noqa: E402
from caef_data.eval.problems import instruction_of  # noqa: E402
from caef_data.eval.session import Session, prepare  # noqa: E402
from caef_data.eval.settings import EvalSettings, eval_settings  # noqa: E402
from caef_data.eval.training.rows import Job  # noqa: E402
from caef_data.tests.evaluating import begun, finish, model_of, tables_of  # noqa: E402
from caef_data.tests.small_model import make_model, make_tokenizer, save  # noqa: E402
from caef_data.tm import align_in, transition  # noqa: E402

SAID = instruction_of("executors/add")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an untrained model that reads the longest rows with their instructions."""
    tokenizer = make_tokenizer()
    return save(tmp_path_factory.mktemp("base"), make_model(len(tokenizer), width=32, positions=4096), tokenizer)


def begin(data: Path, out: Path, **given: Any) -> Session:
    return prepare(EvalSettings(**{"data": str(data), "out": str(out), "backend": "oracle", "limit": 1, **given}))


def test_a_stage_is_part_of_what_a_run_is(data: Path, tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [{"stage": "first"}, {"stage": "second"}, {}]
    first, second, plain = (begin(data, tmp_path, task="sub", **more) for more in given)
    assert first.tables.run_id != second.tables.run_id == plain.tables.run_id
    assert "--stage first" in first.settings.command and "--stage" not in second.settings.command
    for session, stage in ((first, "first"), (second, "second")):
        finish(session, OracleBackend())
        row = session.tables.read_run()
        assert row is not None and row["stage"] == stage
        assert all(call["correct"] for call in tables_of(session)["calls"])  # machines need no instruction


def test_a_baseline_has_no_instruction(tmp_path: Path) -> None:
    asked = {"baseline": True, "base_model": "x"}
    with pytest.raises(UserError, match="leave out --stage"):
        EvalSettings(**asked, stage="first")
    with pytest.raises(UserError, match="first, second"):
        EvalSettings(backend="oracle", stage="third")
    path = tmp_path / "mine.toml"
    path.write_text('[eval]\nadapters = "ckpt"\nstage = "first"\n')
    assert eval_settings(str(path), {}).stage == "first"
    assert eval_settings(str(path), asked).stage == "second"


def test_rows_with_other_instructions_are_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "instruction", lambda machine, view: "Do something else.")
    with (
        pytest.raises(UserError, match="their instruction is not that of the machine"),
        begun(begin(data, tmp_path, stage="first", task="add")),
    ):
        pass
    with begun(begin(data, tmp_path, task="add")):  # the second stage has no use for it
        pass


def test_each_prompt_is_asked_behind_the_instruction_of_its_machine(data: Path, tmp_path: Path, base: Path) -> None:
    """Called machines and aligners, too; the same tokens as training reads."""
    given = {"backend": "transformers", "model": str(base), "device": "cpu", "task": "sub", "mode": "process"}
    session = begin(data, tmp_path, stage="first", **given)
    finish(session, model_of(session))
    calls, tokens = tables_of(session)["calls"], Tokens(make_tokenizer())
    job = Job("executors/sub", (), cast("Any", None), tokens, None)
    assert {row["adapter"] for row in calls} >= {"aligners/sub", "executors/sub"} and len(calls) > 4
    for row in calls:
        texts = {"prompt": row["prompt"], "completion": row["expected"], "instruction": instruction_of(row["adapter"])}
        [(prompt, answer)] = job.spell([texts], "first")
        assert row["tokens"] == len(prompt) + len(answer) > 500


def asked(base: Path, said: str = SAID, **options: Any) -> tuple[TransformersBackend, list[Request]]:
    """Return a backend behind an instruction, and rows to judge, some of which it answers right."""
    tokens = {BASE: load_tokenizers(base, {})[BASE].behind(said)}
    backend = TransformersBackend(base, {}, tokens, device="cpu", **options)
    rows = [transition("add", 12 * step + 5, 30 - step, step % 3) for step in range(9)]
    return backend, [Request(row.prompt, row.completion) for row in rows]


def verdicts(backend: TransformersBackend, calls: Sequence[Request]) -> dict[int, tuple[bool, int | None]]:
    return {index: (score.right, score.at) for index, score in backend.verify(BASE, calls)}


def out_of_memory(*_: Any) -> bool:
    raise torch.OutOfMemoryError


def strange(*_: Any) -> bool:
    raise AttributeError("this cache has no keys")


def other_tokens(self: shared.Prefix, width: int) -> dict[str, Any]:
    self.held = [[keys, 2 * values] for keys, values in self.held]
    return KEPT(self, width)


KEPT = shared.Prefix.options


@pytest.mark.parametrize(
    ("name", "instead"), [("_takes", out_of_memory), ("_takes", strange), ("options", other_tokens)]
)
def test_what_a_model_does_not_share_is_computed_for_each_row(
    name: str, instead: Callable[..., Any], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, calls = asked(base)
    right = verdicts(backend, calls)
    assert backend.stats["shared"] > 1000 and len(right) == len(calls)
    monkeypatch.setattr(shared.Prefix, name, instead)
    backend, _ = asked(base)
    assert verdicts(backend, calls) == right and not backend.stats["shared"]


def test_batches_count_what_their_rows_share(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, plain = [], local.score

    def score(model: Any, rows: Sequence[Any], prefix: shared.Prefix) -> Any:
        batches.append((len(rows), max(row.length for row in rows)))
        return plain(model, rows, prefix)

    monkeypatch.setattr(local, "score", score)
    backend, calls = asked(base, batch_tokens=600)
    verdicts(backend, calls)
    assert max(rows for rows, _ in batches) > 1
    assert all(rows * longest <= CACHED * 600 for rows, longest in batches)


def test_rows_share_only_what_all_of_them_begin_with(base: Path) -> None:
    """The end of the instruction makes one token with the prompt of some rows."""
    said = "b" * 100 + "1"
    backend, _ = asked(base, said)
    prompts = ["2=", align_in("1+1="), "34="]
    calls = [Request(prompt, "a") for prompt in prompts]
    found = verdicts(backend, calls)
    tokens = backend.tokens[BASE]
    assert len(backend.prefix) == 100 == len(tokens.beginning()) - 1
    assert tokens.prompts(prompts)[0] == make_tokenizer().encode(said + "2=")
    for call, index in zip(calls, range(3), strict=True):  # one row shares nothing
        alone, _ = asked(base, said)
        assert verdicts(alone, [call]) == {0: found[index]} and not len(alone.prefix)
