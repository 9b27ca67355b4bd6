"""The tiny model: its script runs, goes on after a kill, and the committed checkpoint does what its README says."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

torch = pytest.importorskip("torch", reason="the tiny model needs torch, transformers and peft")
transformers = pytest.importorskip("transformers", reason="the tiny model needs torch, transformers and peft")
peft = pytest.importorskip("peft", reason="the tiny model needs torch, transformers and peft")

from caef_data.pipelines.build import build  # noqa: E402
from caef_data.pipelines.declaration import load_declaration  # noqa: E402
from caef_data.pipelines.plan import make_plan  # noqa: E402
from caef_data.tests.commands import contents  # noqa: E402

TINY = Path(__file__).resolve().parents[1] / "examples" / "tiny"
CKPT = TINY / "ckpt"
FEW = """
max = 2
num = 2
steps = "all"
views = ["one_step", "aligner", "raw"]
[[task]]
task = ["add", "sub"]
"""


@pytest.fixture(scope="module")
def make() -> Iterator[ModuleType]:
    """Return the script as a module, and put back what it sets for the whole process."""
    spec = importlib.util.spec_from_file_location("tiny_make", TINY / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine the threads of such small products only wait for each other
    yield module
    torch.set_num_threads(threads)
    del sys.modules[spec.name]
    torch.use_deterministic_algorithms(False)
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    return transformers.AutoTokenizer.from_pretrained(CKPT / "base")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of the rows that the tiny model learned from and is measured on."""
    out = tmp_path_factory.mktemp("tiny") / "data"
    build(make_plan(load_declaration(str(TINY / "tiny.toml"))), out, workers=1)
    return out


# The tokenizer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [300, pytest.param(10**9, marks=pytest.mark.long)], ids=["some rows", "all rows"])
def test_the_tokenizer_gives_rows_of_every_task_back(
    smoke: Path, tokenizer: transformers.PreTrainedTokenizerFast, most: int
) -> None:
    for folder in sorted(path for path in smoke.iterdir() if path.is_dir()):
        table = pl.read_parquet(folder / "*.parquet").select(pl.col("prompt", "completion", "instruction").cast(str))
        table = table.sample(min(len(table), most), seed=1)
        prompts, completions = table["prompt"].to_list(), table["completion"].to_list()
        together = tokenizer([a + b for a, b in zip(prompts, completions, strict=True)])["input_ids"]
        apart = zip(tokenizer(prompts)["input_ids"], tokenizer(completions)["input_ids"], strict=True)
        assert together == [a + b for a, b in apart], folder.name
        for texts in (prompts, completions, table["instruction"].unique().to_list()):
            encoded = tokenizer(texts)["input_ids"]
            assert tokenizer.batch_decode(encoded) == texts, folder.name
            assert not any(tokenizer.unk_token_id in row or tokenizer.eos_token_id in row for row in encoded)


def test_format_words_digits_and_cells_are_single_tokens(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    entry = "ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]\nCMD: [C] 0, [OUTPUT] 2, [HEAD1] RIGHT, q1\n"
    state = ["ADD", ", ", "q1", ", ", " ", "|2", "[HEAD1]", "|1", " ", "|9", "[HEAD2]", " ", "[C]", "1", " ", "|1"]
    command = ["[OUTPUT]", "\n", "CMD: ", "[C]", " ", "0", ", ", "[OUTPUT]", " ", "2", ", ", "[HEAD1]", " RIGHT, "]
    assert tokenizer.tokenize(entry) == [*state, *command, "q1", "\n"]
    assert tokenizer.tokenize("120==7=") == ["1", "2", "0", "==", "7", "="]
    assert tokenizer("é")["input_ids"] == [tokenizer.unk_token_id]


def test_the_committed_tokenizer_is_the_one_that_the_script_makes(make: ModuleType, tmp_path: Path) -> None:
    make.make_tokenizer().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == json.loads(
        (CKPT / "base" / "tokenizer.json").read_text()
    )


# The script ---------------------------------------------------------------------------------------------------------


def test_the_script_runs_and_goes_on_after_a_kill_to_the_same_bytes(
    make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few.toml").write_text(FEW)

    def run(name: str, *more: str) -> None:
        few = ["--declaration", str(tmp_path / "few.toml"), "--steps", "6", "--adapter-steps", "2", "--batch", "4"]
        make.main(["--out", str(tmp_path / name), *few, *more])

    def killed_at(step: int) -> None:
        descend, left = make.descend, [step]

        def until(*arguments: object) -> tuple[float, float]:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return descend(*arguments)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(make, "descend", until)
            run("killed")

    monkeypatch.setattr(make, "SAVE_EVERY", 2)
    monkeypatch.setattr(make, "SIMPLE", ("add", "sub"))  # two machines show what nine would, sooner
    monkeypatch.setattr(make, "COMPOSED", ())
    monkeypatch.setattr(make, "HELPERS", ())
    monkeypatch.setattr(make, "ALIGNERS", ("sub",))
    monkeypatch.setattr(make, "LONGER", {})
    monkeypatch.setattr(make, "ADAPTERS", (("executors", "add"), ("executors", "sub"), ("aligners", "sub")))
    run("whole")
    table = capsys.readouterr().out
    assert "executors/add" in table and "aligners/sub out" in table and "raw questions, sub" in table
    made = contents(tmp_path / "whole" / "ckpt")
    assert {name.rpartition("/")[0] for name in made} == {"base", *(f"{kind}/{task}" for kind, task in make.ADAPTERS)}

    killed_at(5)  # in the base model's first course, after its state of step 4
    killed_at(2 + 3)  # at the end of its second course
    killed_at(3)  # in the second adapter
    first = tmp_path / "killed" / "ckpt" / "executors" / "add" / "adapter_model.safetensors"
    written = first.stat().st_mtime_ns
    assert not (tmp_path / "killed" / "ckpt" / "executors" / "sub").exists()
    run("killed")
    assert contents(tmp_path / "killed" / "ckpt") == made
    assert first.stat().st_mtime_ns == written

    with pytest.raises(SystemExit, match="other settings"):
        run("killed", "--seed", "1")
    assert contents(tmp_path / "killed" / "ckpt") == made


# The committed checkpoint -------------------------------------------------------------------------------------------


def test_the_checkpoint_is_small_movable_and_holds_no_code(make: ModuleType) -> None:
    files = [path for path in CKPT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    found = {path.parent.relative_to(CKPT).as_posix() for path in files if path.name == "adapter_config.json"}
    assert found == {f"{kind}/{task}" for kind, task in make.ADAPTERS}
    for adapter in found:
        config = json.loads((CKPT / adapter / "adapter_config.json").read_text())
        assert (CKPT / adapter / config["base_model_name_or_path"]).resolve() == CKPT / "base"


@pytest.fixture(scope="module")
def sample(make: ModuleType, rows: Path) -> dict[tuple[str, str], pl.DataFrame]:
    """Return up to 100 test rows for each adapter, the same ones in every run, of every state and direction."""
    views = {key: pl.read_parquet(rows / f"{key[1]}-{make.VIEWS[key[0]]}" / "test-*.parquet") for key in make.ADAPTERS}
    return {key: table.sample(min(len(table), 100), seed=1) for key, table in views.items()}


def test_the_stored_adapters_get_held_out_rows_right(
    make: ModuleType, sample: dict[tuple[str, str], pl.DataFrame], tokenizer: transformers.PreTrainedTokenizerFast
) -> None:
    """The arg-max at every position of the completion and its end is the next token, worked out without the script."""
    right, wrong = list[bool](), dict[str, int]()
    for kind, task in make.ADAPTERS:
        base = transformers.AutoModelForCausalLM.from_pretrained(CKPT / "base", dtype=torch.float32)
        model = peft.PeftModel.from_pretrained(base, CKPT / kind / task)
        verdicts = []
        for prompt, completion in sample[kind, task].select("prompt", "completion").iter_rows():
            start = len(tokenizer(prompt)["input_ids"])
            tokens = torch.tensor([*tokenizer(prompt + completion)["input_ids"], tokenizer.eos_token_id])
            with torch.no_grad():
                best = model(input_ids=tokens[None, :-1]).logits[0].argmax(-1)
            verdicts.append(bool((best[start - 1 :] == tokens[start:]).all()))
        right += verdicts
        wrong[f"{kind}/{task}"] = verdicts.count(False)
    assert len(right) >= 1_100
    assert sum(right) >= 0.99 * len(right), wrong
    assert max(wrong.values()) <= 3, wrong


def test_greedy_decoding_and_the_scripts_own_measure_say_the_same(
    make: ModuleType,
    rows: Path,
    sample: dict[tuple[str, str], pl.DataFrame],
    tokenizer: transformers.PreTrainedTokenizerFast,
) -> None:
    """Right rows and wrong ones: an adapter on its own rows, and on another machine's."""
    for adapter, asked in (("executors/add", "sub"), ("executors/sub", "sub"), ("aligners/sub", "sub")):
        kind = adapter.partition("/")[0]
        model = peft.PeftModel.from_pretrained(make.load_base(CKPT / "base"), CKPT / adapter)
        held = make.load_rows(tokenizer, rows, f"{asked}-{make.VIEWS[kind]}", "test")
        first = (column[:60] for column in (held.tokens, held.prompts, held.groups, held.directions))
        measured = make.measure(model, make.Rows(*first))
        table = pl.read_parquet(rows / f"{asked}-{make.VIEWS[kind]}" / "test-*.parquet")
        said = []
        for prompt in table["prompt"][:4]:
            ids = torch.tensor([tokenizer(prompt)["input_ids"]])
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False)
            said.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
        assert [text == truth for text, truth in zip(said, table["completion"], strict=False)] == measured[:4].tolist()
