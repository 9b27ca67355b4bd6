"""The tiny model: the commands that make it run, and the committed checkpoint does what its page says."""

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns
from statistics import mean
from types import ModuleType

import polars as pl
import pytest

torch = pytest.importorskip("torch", reason="the tiny model needs torch, transformers and peft")
transformers = pytest.importorskip("transformers", reason="the tiny model needs torch, transformers and peft")
peft = pytest.importorskip("peft", reason="the tiny model needs torch, transformers and peft")

from caef_data.eval.checkpoint import find_adapters  # noqa: E402
from caef_data.eval.training.settings import VIEWS  # noqa: E402
from caef_data.pipelines.build import build  # noqa: E402
from caef_data.pipelines.curriculum import mix_of  # noqa: E402
from caef_data.pipelines.declaration import load_declaration  # noqa: E402
from caef_data.pipelines.plan import make_plan  # noqa: E402
from caef_data.tests.commands import call  # noqa: E402
from caef_data.tm import machine, tasks  # noqa: E402

TINY = Path(__file__).resolve().parents[1] / "examples" / "tiny"
CKPT = TINY / "ckpt"
ADAPTERS = [
    (kind, task) for kind, view in VIEWS.items() for task in tasks() if view not in machine(task).missing_views()
]


@pytest.fixture(scope="module")
def make() -> Iterator[ModuleType]:
    """Return the script as a module, and put back what it sets for the whole process."""
    spec = importlib.util.spec_from_file_location("tiny_make", TINY / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine the threads of such small products only wait for each other
    yield module
    torch.set_num_threads(threads)


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


@pytest.mark.parametrize("most", [100, pytest.param(10**9, marks=pytest.mark.long)], ids=["some rows", "all rows"])
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


@pytest.fixture(scope="module")
def made(make: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the script writes, below a copy of the declarations."""
    root = tmp_path_factory.mktemp("made")
    (root / "examples").mkdir()
    copytree(TINY, root / "examples" / "tiny", ignore=ignore_patterns("ckpt"))
    make.main([str(root / "build" / "tiny" / "start")])
    return Path(root, "build", "tiny", "start")


# How it is made -----------------------------------------------------------------------------------------------------


def test_the_base_model_learns_all_tasks_and_views(made: Path) -> None:
    declared = load_declaration(str(made.parents[2] / "examples" / "tiny" / "base.toml"))
    views = {"one_step", "aligner", "raw"}
    wanted = {(task, view) for task in tasks() for view in views - {*machine(task).missing_views()}}
    assert {*mix_of(declared)} == wanted


def test_in_most_comparisons_most_digits_are_the_same_and_called_expressions_come(made: Path) -> None:
    lines = [tuple(line.split()) for line in (made / "base.txt").read_text().splitlines()]
    assert {task for task, *_ in lines} == {*tasks()}
    pairs = [(line[1][::-1], line[2][::-1]) for line in lines if line[0] == "equal"]
    assert mean(x == y for a, b in pairs for x, y in zip(a, b, strict=False)) > 0.5
    subtractions = [line[1:] for line in lines if line[0] == "sub"]
    assert {("reflection", "9" * len(a), b) for a, b in subtractions} <= {*lines}


def test_the_commands_of_its_page_make_a_checkpoint(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the page, with a few expressions, steps and tasks in place of all."""
    lines = (made / "base.txt").read_text().splitlines()
    (made / "base.txt").write_text("\n".join(lines[::40]))
    (made / "div.txt").write_text("div 12 3\n")
    page = (TINY / "README.md").read_text("utf-8").partition("```sh\n")[2].partition("```")[0]
    monkeypatch.chdir(made.parents[2])
    few = "steps = 1\nbatch_tokens = 500\n"
    for path in Path("examples/tiny").glob("*.toml"):
        text = re.sub(r"(batch_)?tokens = [\d_]+\n", "", path.read_text("utf-8"))
        text = re.sub(r'(?s)which = \[[^"]*"(executors|aligners).*?\]', r'which = "\1"', text)
        path.write_text(re.sub(r"(?s)\[mix\].*\[train\]", "[train]", text) + few)
        if path.name != "div.toml":
            path.write_text(path.read_text("utf-8") + 'task = "equal"\n')
    for line in page.splitlines():
        program, *words = shlex.split(line)
        if program == "mkdir":
            Path(words[0]).mkdir()
        elif program == "mv":
            Path(words[0]).rename(words[1])
        elif program == "caef-data":
            code, said = call(*words)
            assert code == 0, said
        else:
            assert line == f"python examples/tiny/make.py {made.relative_to(made.parents[2])}"
    found = find_adapters("build/tiny/ckpt", None)
    assert {*found.adapters} == {"executors/equal", "executors/div", "aligners/equal"}


# The committed checkpoint -------------------------------------------------------------------------------------------


def test_the_checkpoint_is_small_movable_and_holds_no_code() -> None:
    files = [path for path in CKPT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    found = {path.parent.relative_to(CKPT).as_posix() for path in files if path.name == "adapter_config.json"}
    assert found == {f"{kind}/{task}" for kind, task in ADAPTERS}
    for adapter in found:
        config = json.loads((CKPT / adapter / "adapter_config.json").read_text())
        assert (CKPT / adapter / config["base_model_name_or_path"]).resolve() == CKPT / "base"


@pytest.fixture(scope="module")
def sample(rows: Path) -> dict[tuple[str, str], pl.DataFrame]:
    """Return up to 100 test rows for each adapter, the same ones in every run, of every state and direction."""
    views = {key: pl.read_parquet(rows / f"{key[1]}-{VIEWS[key[0]]}" / "test-*.parquet") for key in ADAPTERS}
    return {key: table.sample(min(len(table), 100), seed=1) for key, table in views.items()}


def test_the_stored_adapters_get_held_out_rows_right(
    sample: dict[tuple[str, str], pl.DataFrame], tokenizer: transformers.PreTrainedTokenizerFast
) -> None:
    """The arg-max at every position of the completion and its end is the next token, worked out without the script."""
    right, wrong = list[bool](), dict[str, int]()
    for kind, task in ADAPTERS:
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
