"""Which adapters and base model a checkpoint folder holds, found without torch; what is missing or odd is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from safetensors.numpy import load_file, save_file

from caef_data.errors import UserError
from caef_data.eval.checkpoint import HUB_NAME, fetch, find_adapters, read_base, task_of
from caef_data.eval.problems import MODES, RAW, needed, whole_runs
from caef_data.tests.checkpoints import lora_config, write_adapter, write_base, write_checkpoint, write_json
from caef_data.tm import tasks
from caef_data.tm.registry import machine

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "ckpt", ("executors/add", "executors/subtraction", "aligners/add"))


def change_base(ckpt: Path, **changed: Any) -> None:
    for path in ckpt.glob("*/*/adapter_config.json"):
        write_json(path, lora_config(**changed))


def test_what_a_checkpoint_holds(ckpt: Path) -> None:
    found = find_adapters(ckpt, None)
    assert set(found.adapters) == {"executors/add", "executors/sub", "aligners/add"}
    assert found.base == (ckpt / "base").resolve()
    adapter = found.adapters["executors/sub"]
    assert (adapter.path, adapter.base) == (ckpt / "executors/subtraction", "../../base")
    hashes = {one.hashed.sha256 for one in found.adapters.values()} | {found.base_sha256}
    assert len(hashes) == 4 and all(len(one or "") == 64 for one in hashes)


def test_hashes_follow_the_content_alone(ckpt: Path, tmp_path: Path) -> None:
    first = find_adapters(ckpt, None)
    moved = tmp_path / "elsewhere"
    ckpt.rename(moved)
    second = find_adapters(moved, None)
    assert second.base_sha256 == first.base_sha256
    assert {name: one.hashed.sha256 for name, one in second.adapters.items()} == {
        name: one.hashed.sha256 for name, one in first.adapters.items()
    }
    weights = load_file(moved / "executors/add/adapter_model.safetensors")
    next(iter(weights.values())).flat[0] += 1
    save_file(weights, moved / "executors/add/adapter_model.safetensors")
    write_json(moved / "aligners/add/adapter_config.json", lora_config(lora_alpha=1))
    (moved / "base/tokenizer_config.json").write_text((moved / "base/tokenizer_config.json").read_text() + " ")
    (moved / "executors/subtraction/tokenizer.json").write_bytes((moved / "base/tokenizer.json").read_bytes())
    third = find_adapters(moved, None)
    assert third.base_sha256 != first.base_sha256
    assert not {one.hashed.sha256 for one in third.adapters.values()} & {
        one.hashed.sha256 for one in first.adapters.values()
    }


def test_files_that_were_written_are_told_from_those_that_have_another_number(ckpt: Path) -> None:
    found, path = find_adapters(ckpt, None), ckpt / "executors/add/adapter_model.safetensors"
    os.link(path, ckpt / "old")  # its number is not given again
    shutil.copy2(path, ckpt / "new")
    (ckpt / "new").replace(path)
    for name in ("executors/add", "base"):
        found.check_unchanged(name)
    content, before = path.read_bytes(), path.stat()
    (ckpt / "new").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(ckpt / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (ckpt / "new").replace(path)
    with pytest.raises(UserError, match="written while it was loaded"):
        found.check_unchanged("executors/add")


def test_nothing_heavy_is_imported(ckpt: Path) -> None:
    code = f"import sys; from caef_data.eval.checkpoint import find_adapters; find_adapters({str(ckpt)!r}, None)\n"
    code += "print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"torch", "transformers", "peft", "huggingface_hub"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *((task, task) for task in tasks()),
        ("addition", "add"),
        ("Subtraction", "sub"),
        ("MULTIPLICATION", "mul"),
        ("division", "div"),
        ("Greater-Than", "greater_than"),
        ("LEFT_MASK", "left_mask"),
        ("additon", None),
        ("checkpoint-500", None),
    ],
)
def test_names_of_folders(name: str, task: str | None) -> None:
    assert task_of(name) == task


def test_what_is_needed() -> None:
    def names(task: str, mode: str) -> str:
        return " ".join(sorted(needed(task, mode)))

    assert names("sub", "one_step") == "executors/sub"
    assert names("sub", "executor") == "executors/add executors/left_mask executors/reflection executors/sub"
    assert needed("sub", "process") == needed("sub", "executor") | {"aligners/sub"}
    assert names("mul", "executor") == "executors/add executors/less_than executors/mul"
    assert names("div", "executor") == "executors/add executors/div executors/greater_than"
    assert names("add", "executor") == "executors/add"
    assert names("equal", "aligner_in") == names("equal", "aligner_out") == "aligners/equal"
    assert names("add", RAW) == ""


@pytest.mark.parametrize("task", tasks())
def test_no_run_needs_more_than_what_is_needed(task: str) -> None:
    kind = machine(task)
    for mode in MODES if kind.has_raw else ("one_step", "executor"):
        for a, b in ((99, 1), (99, 98), (9, 9), (10, 3)):
            if mode in ("executor", "process") and kind.domain_error(a, 0 if kind.unary else b) is None:
                rows = pa.table({"a": [str(a)], "b": pa.array([None if kind.unary else str(b)], pa.string())})
                [found] = whole_runs(task, mode, "test", rows)
                assert set(found.requests.column("adapter").to_pylist()) <= needed(task, mode)


def refused(root: Path, words: str, base: str | None = None) -> str:
    with pytest.raises(UserError, match=words) as raised:
        find_adapters(root, base)
    return str(raised.value)


def test_two_folders_for_one_task(ckpt: Path) -> None:
    write_adapter(ckpt / "executors" / "SUB")
    assert "SUB and subtraction" in refused(ckpt, "two folders hold the adapter executors/sub")


def test_an_unknown_task(ckpt: Path) -> None:
    write_adapter(ckpt / "executors" / "additon")
    assert "did you mean 'addition'?" in refused(ckpt, "no task is called 'additon'")


def test_what_is_no_adapter_is_left_alone(ckpt: Path) -> None:
    (ckpt / "executors" / "README.md").write_text("x")
    (ckpt / "executors" / ".cache").mkdir()
    (ckpt / "executors" / "logs").mkdir()
    assert len(find_adapters(ckpt, None).adapters) == 3


def test_no_folder_no_adapters_one_adapter(ckpt: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "no such checkpoint folder")
    refused(ckpt / "executors/add/adapter_config.json", "no such checkpoint folder")
    refused(ckpt / "base", "no adapters in this folder")
    refused(ckpt / "executors", "no adapters in this folder")


def test_one_adapter(ckpt: Path, tmp_path: Path) -> None:
    assert find_adapters(ckpt / "executors/subtraction", None).adapters.keys() == {"executors/sub"}
    assert find_adapters(ckpt / "aligners/add", None).adapters.keys() == {"aligners/add"}
    alone = write_adapter(tmp_path / "sub", base=str(ckpt / "base"))
    assert "--mode one_step" in refused(alone, "does not say what it is for")
    assert find_adapters(alone, None, mode=("executor", "one_step")).adapters.keys() == {"executors/sub"}
    assert find_adapters(alone, None, mode=("aligner_in",)).adapters.keys() == {"aligners/sub"}
    other = alone.rename(tmp_path / "lora")
    assert "--task" in refused(other, "does not say what it is for")
    assert find_adapters(other, None, task=("mul",), mode=("one_step",)).adapters.keys() == {"executors/mul"}
    with pytest.raises(UserError, match="does not say what it is for"):
        find_adapters(other, None, task=("mul", "div"), mode=("one_step",))


def test_an_empty_folder(ckpt: Path) -> None:
    (ckpt / "executors" / "mul").mkdir()
    refused(ckpt, "no adapter_config.json in mul, which is empty")


def test_the_latest_state_of_a_training_is_taken(ckpt: Path) -> None:
    for step in (500, 1000):
        write_adapter(ckpt / "executors" / "mul" / f"checkpoint-{step}", seed=step)
    (ckpt / "executors" / "mul" / "checkpoint-2000").mkdir()  # it was stopped while this one was written
    write_adapter(ckpt / "executors" / "add" / "checkpoint-9", seed=9)
    told: list[str] = []
    found = find_adapters(ckpt, str(ckpt / "base"), say=told.append)
    assert found.adapters["executors/mul"].path == ckpt / "executors/mul/checkpoint-1000"
    assert found.adapters["executors/add"].path == ckpt / "executors/add"
    assert told == ["executors/mul: checkpoint-1000, the latest, is used"]
    alone = find_adapters(ckpt / "executors/mul", str(ckpt / "base"))
    assert alone.adapters["executors/mul"].path == ckpt / "executors/mul/checkpoint-1000"
    write_adapter(ckpt / "executors/mul/checkpoint-0500", seed=1)  # an older one
    assert find_adapters(ckpt / "executors/mul", str(ckpt / "base")).adapters == alone.adapters
    write_adapter(ckpt / "executors/mul/checkpoint-01000", seed=2)
    for folder in (ckpt, ckpt / "executors/mul"):
        text = refused(folder, "'checkpoint-01000' and 'checkpoint-1000' are states of the same step")
        assert str(ckpt / "executors/mul") in text


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "model.pkl"])
def test_a_pickle_is_refused_by_name(ckpt: Path, name: str) -> None:
    os.rename(ckpt / "executors/add/adapter_model.safetensors", ckpt / "executors/add" / name)
    text = refused(ckpt, "which is not read: unpickling a file runs what is in it")
    assert name in text and "save_pretrained" in text


def test_a_pickle_beside_safetensors_is_not_looked_at(ckpt: Path) -> None:
    (ckpt / "executors/add/training_args.bin").write_bytes(b"\x80\x04.")
    assert len(find_adapters(ckpt, None).adapters) == 3


def test_links(ckpt: Path, tmp_path: Path) -> None:
    (ckpt / "executors/mul").symlink_to("add")
    assert set(find_adapters(ckpt, None).adapters) > {"executors/mul"}
    (ckpt / "executors/mul").unlink()
    blobs = tmp_path / "models--me--caef" / "blobs"
    blobs.mkdir(parents=True)
    snapshot = blobs.parent / "snapshots" / COMMIT
    for number, path in enumerate(sorted(ckpt.rglob("*.*"))):
        (blobs / str(number)).write_bytes(path.read_bytes())
        link = snapshot / path.relative_to(ckpt)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blobs / str(number))
    assert find_adapters(snapshot, None).adapters.keys() == find_adapters(ckpt, None).adapters.keys()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_pipe_is_not_waited_for(ckpt: Path, name: str) -> None:
    (ckpt / "executors/add" / name).unlink()
    os.mkfifo(ckpt / "executors/add" / name)
    refused(ckpt, f"there is no {name} in add")


# The base model


def test_a_base_that_configurations_name_in_several_ways(ckpt: Path, tmp_path: Path, monkeypatch: Any) -> None:
    for base in ("../../base", "base", "./base", str(ckpt / "base")):
        change_base(ckpt, base=base)
        assert find_adapters(ckpt, None).base == ckpt / "base"
    monkeypatch.chdir(tmp_path)
    change_base(ckpt, base="ckpt/base")
    assert find_adapters(ckpt, None).base == ckpt / "base"


def test_the_option_is_taken_before_the_configurations(ckpt: Path, tmp_path: Path) -> None:
    change_base(ckpt, base="/nowhere/llama")
    assert "say where it is with --base-model" in refused(ckpt, "is not here: /nowhere/llama")
    other = write_base(tmp_path / "other", seed=5)
    assert find_adapters(ckpt, str(other)).base == other
    refused(ckpt, "there is no base model", base=str(tmp_path / "nothing"))
    refused(ckpt, "there is no base model", base=str(ckpt / "base/config.json"))
    for name in ("a/" * 3000, "/" + "b" * 300, "~nobody-of-that-name/base", "a\0b"):
        refused(ckpt, "there is no base model", base=name)
        refused(Path(name), "no such checkpoint folder|cannot be read")
        if name.isprintable():
            change_base(ckpt, base=name)
            refused(ckpt, "is not here")


def test_adapters_of_different_bases(ckpt: Path, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other")
    write_json(ckpt / "aligners/add/adapter_config.json", lora_config(base=str(other)))
    text = refused(ckpt, "the adapters name 2 base models")
    assert "aligners/add" in text and str(other) in text and "--base-model" in text


def test_a_relative_base_outside_the_checkpoint(ckpt: Path, tmp_path: Path) -> None:
    write_base(tmp_path / "models")
    change_base(ckpt, base="../models")
    assert find_adapters(ckpt, None).base == tmp_path / "models"
    change_base(ckpt, base="../../../../no/such")
    refused(ckpt, "is not here")
    change_base(ckpt, base=None)
    refused(ckpt, "names no base model")


def test_a_base_alone(ckpt: Path) -> None:
    found = find_adapters(None, str(ckpt / "base"))
    assert not found.adapters and found.base == ckpt / "base"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["config.json"], "there is no file config.json"),
        (["tokenizer.json"], "no tokenizer"),
        (["model.safetensors"], "no weights"),
    ],
)
def test_a_base_that_lacks_something(ckpt: Path, names: list[str], words: str) -> None:
    for name in names:
        (ckpt / "base" / name).unlink()
    refused(ckpt, words, base=str(ckpt / "base"))


def test_a_base_of_pickles(ckpt: Path) -> None:
    os.rename(ckpt / "base/model.safetensors", ckpt / "base/pytorch_model.bin")
    assert "'pytorch_model.bin'" in refused(ckpt, "not read: unpickling")


def test_where_a_server_has_the_weights(ckpt: Path) -> None:
    (ckpt / "base/model.safetensors").unlink()
    found = find_adapters(ckpt, None, weights=False)
    assert (found.base, len(found.adapters)) == (ckpt / "base", 3)
    (ckpt / "base/config.json").write_text((ckpt / "base/config.json").read_text() + " ")
    assert find_adapters(ckpt, None, weights=False).base_sha256 != found.base_sha256


def test_an_adapter_inside_the_base(ckpt: Path) -> None:
    (ckpt / "base/adapter_config.json").write_text("{}")
    refused(ckpt, "an adapter lies in the base model's folder")


def test_a_base_in_several_files(ckpt: Path) -> None:
    weights = load_file(ckpt / "base/model.safetensors")
    (ckpt / "base/model.safetensors").unlink()
    names = sorted(weights)
    held = {}
    for number, part in enumerate(np.array_split(np.array(names), 2), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({str(name): weights[str(name)] for name in part}, ckpt / "base" / file)
        held |= {str(name): file for name in part}
    index = ckpt / "base/model.safetensors.index.json"
    write_json(index, {"weight_map": held})
    whole = find_adapters(ckpt, None).base_sha256
    assert whole and whole != find_adapters(ckpt, None, weights=False).base_sha256
    (ckpt / "base/model-00002-of-00002.safetensors").unlink()
    assert find_adapters(ckpt, None).base_sha256 != whole


# The Hub


@pytest.mark.parametrize("name", ["gpt2", "meta-llama/Llama-3.1-8B", "a/b.c_d-e"])
def test_names_on_the_hub(name: str) -> None:
    assert HUB_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["/abs", "./a", "../a", "a/b/c", "~/a", "a b", "a@b", "", "-x"])
def test_what_is_no_name_on_the_hub(name: str) -> None:
    assert not HUB_NAME.fullmatch(name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of user/tiny in a cache of the Hub that holds it; the Hub itself is out of reach."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "cache" / "models--user--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    return write_base(repo / "snapshots" / COMMIT)


def test_a_base_on_the_hub(ckpt: Path, hub: Path) -> None:
    change_base(ckpt, base="user/tiny")
    found = find_adapters(ckpt, None)
    assert (found.base, found.base_sha256) == (f"user/tiny@{COMMIT}", None)
    assert find_adapters(None, "user/tiny").base == found.base
    here = fetch(found)
    assert here.base == hub and here.base_sha256 == read_base(ckpt / "base").sha256
    assert fetch(here) is not None and fetch(here).base == hub


def test_a_base_on_the_hub_is_checked_when_it_has_come(ckpt: Path, hub: Path) -> None:
    found = find_adapters(ckpt, "user/tiny")
    write_json(hub / "config.json", {"attn_implementation": "attacker/kernel"})
    with pytest.raises(UserError, match="may be code of its own"):
        fetch(found)


def test_a_base_that_the_hub_does_not_give(ckpt: Path, hub: Path) -> None:
    text = refused(ckpt, "cache does not hold it", base="user/other")
    assert "--base-model" in text
