"""Reading from the Hub: datasets, adapters and published files of a test Hub, through the real client."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", reason="reading from the Hub needs huggingface_hub")

from caef_data.errors import UserError  # noqa: E402
from caef_data.eval.inputs import checkpoints  # noqa: E402
from caef_data.pipelines.hub_source import HubPlace, hub_place, local_or_hub  # noqa: E402
from caef_data.tests.pushing import Side  # noqa: E402

CKPT = Path(__file__).resolve().parents[1] / "examples" / "tiny" / "ckpt"
OFFLINE = {"huggingface_hub.constants:HF_HUB_OFFLINE": True}
LONG = {"add": "addition", "sub": "subtraction", "mul": "multiplication", "div": "division"}


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with Side(tmp_path_factory.mktemp("hub"), xet=False) as made:
        yield made
        made.check()


@pytest.fixture(scope="module")
def dataset(side: Side, data: Path) -> str:
    """Return a dataset's repository, which holds more than is to be read."""
    repo = side.seed(data)
    side.hub.repos[repo].tags["v1"] = side.hub.repos[repo].branches["main"]
    side.hub.commit(repo, {"evil.py": b"raise SystemExit", "weights.bin": b"\x80", "data.pkl": b"\x80"})
    return repo


def published(files: dict[str, bytes], root: str) -> dict[str, bytes]:
    """Return the files of a checkpoint as the published ones lie: long names, somewhere in a repository."""
    found = {}
    for path, text in files.items():
        kind, _, rest = path.partition("/")
        task, _, name = rest.partition("/")
        found[f"{root}{kind}/{LONG.get(task, task)}/{name}" if kind != "base" else f"{root}{path}"] = text
    return found


def checkpoint_files() -> dict[str, bytes]:
    return {path.relative_to(CKPT).as_posix(): path.read_bytes() for path in CKPT.rglob("*") if path.is_file()}


def model(side: Side, files: dict[str, bytes]) -> str:
    name = side.new()
    side.hub.add_repo(name, kind="model")
    side.hub.commit(name, files)
    return name


def fetched(log: list[Any]) -> set[str]:
    """Return the paths of the files that were asked for: of large ones the head, their bytes are elsewhere."""
    asked = [one.path for one in log if one.endpoint in ("resolve", "resolve-head")]
    return {path.partition("/resolve/")[2].partition("/")[2] for path in asked}


def adapters_of(text: str) -> list[Any]:
    """Run in the client: find a checkpoint and read it."""
    from pathlib import Path

    from caef_data.errors import UserError
    from caef_data.eval.checkpoint import find_adapters
    from caef_data.eval.inputs import checkpoint_folder

    said: list[str] = []
    try:
        folder = checkpoint_folder(text, said.append)
        found = find_adapters(folder, None, say=said.append)
    except UserError as error:
        return [str(error)]
    names = {path.name for path in Path(folder).rglob("*") if path.is_file()}
    return [sorted(found.adapters), sorted(names), str(found.base), said]


def base_of(text: str) -> list[str]:
    """Run in the client: find a base model and fetch it."""
    from caef_data.eval.checkpoint import fetch, find_adapters

    found = find_adapters(None, text)
    here = fetch(found)
    return [str(found.base), str(here.base), str(here.base_sha256)]


# Names


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("user/name", HubPlace("dataset", "user/name", short=True)),
        ("user/name@v1", HubPlace("dataset", "user/name", "v1", short=True)),
        ("hf://datasets/user/name", HubPlace("dataset", "user/name")),
        ("hf://datasets/user/name@refs/pr/3/a/b", HubPlace("dataset", "user/name", "refs/pr/3", "a/b")),
        ("hf://datasets/user/name/a/", HubPlace("dataset", "user/name", None, "a")),
        ("data", None),
        ("./user/name", None),
        ("/user/name", None),
        ("user/name/more", None),
        ("a/..", None),
        ("s3://bucket/name", None),
    ],
)
def test_what_a_name_means(text: str, place: HubPlace | None) -> None:
    assert hub_place(text, "dataset") == place


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hf://user/name", "a dataset is needed here, this names a model"),
        ("hf://spaces/user/name", "this names a space"),
        ("hf://datasets/name", "names nothing on the Hub"),
        ("hf://datasets/../name", "names nothing on the Hub"),
        ("hf://datasets/user/name@", "names nothing on the Hub"),
        ("hf://datasets/user/name/../other", "not inside it"),
        ("hf://datasets/user/name@../../x", "not inside it"),
        ("hf://datasets/user/name/\x1b[31m", "not inside it"),
    ],
)
def test_names_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        hub_place(text, "dataset")


def test_what_exists_here_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user" / "name").mkdir(parents=True)
    said: list[str] = []
    assert local_or_hub("user/name", "dataset", "--data", said.append) == Path("user/name")
    assert said == ["--data user/name is read from this machine; for the Hub's: hf://datasets/user/name"]
    assert local_or_hub("user/other", "model", "--adapters", said.append) == HubPlace(
        "model", "user/other", option="--adapters", short=True
    )
    assert local_or_hub("other", "model", "--adapters", said.append) == Path("other")
    assert local_or_hub(str(tmp_path), "model", "--adapters", said.append) == tmp_path
    assert len(said) == 1


def test_without_the_hubs_client_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        UserError, match=r"user/name from the Hub needs huggingface_hub(.|\n)*pip install 'caef-data\[hub\]'"
    ):
        hub_place("user/name", "dataset")
    assert hub_place("data", "dataset") is None


# Datasets


def test_a_dataset_is_verified_and_described_where_it_is(side: Side, dataset: str) -> None:
    first = side.command("info", f"hf://datasets/{dataset}@v1", "--json")
    assert first.code == 0 and json.loads(first.out)["format"] == 1, first.err
    assert fetched(first.log) == {"manifest.json", "README.md"}
    done = side.command("verify", f"hf://datasets/{dataset}", "--workers", 1, "--json")
    assert done.code == 0 and json.loads(done.out)["ok"], done.out + done.err
    assert json.loads(done.out)["directory"] == f"hf://datasets/{dataset}"
    assert not {"evil.py", "weights.bin", "data.pkl"} & fetched(done.log)
    again = side.command("verify", f"hf://datasets/{dataset}", "--workers", 1)
    assert again.code == 0 and not fetched(again.log), again.out + again.err
    with side.hub.down():
        offline = side.command("verify", f"hf://datasets/{dataset}", "--workers", 1)
    assert offline.code == 0 and offline.err.count("is read from this machine's cache") == 1, offline.err


def test_a_damaged_dataset_is_found_out(side: Side, data: Path) -> None:
    repo = side.seed(data)
    shard = next(path for path in side.hub.files(repo) if path.endswith(".parquet"))
    side.hub.commit(repo, {shard: side.hub.files(repo)[shard][:-1] + b"x"})
    assert side.command("verify", f"hf://datasets/{repo}", "--workers", 1).code == 1


def test_an_evaluation_reads_what_it_needs_and_says_where_it_was(side: Side, data: Path, tmp_path: Path) -> None:
    repo = side.seed(data)
    words = ["eval", "--backend", "oracle", "--data", f"{repo}@main", "--task", "sub", "--out", tmp_path]
    done = side.command(*words)
    assert done.code == 0, done.err
    paths = fetched(done.log) - {"manifest.json", "README.md"}
    assert len(paths) >= 4 and all(path.startswith("sub-") and "/test-" in path for path in paths)
    commit = side.hub.repos[repo].branches["main"]
    table = side.command("query", "SELECT data FROM runs", "--results", tmp_path, "--format", "csv")
    assert f"hf://datasets/{repo}@{commit}" in table.out, table.err
    assert side.command(*words, settings=OFFLINE).code == 0
    lost = side.command(*words[:-1], tmp_path / "more", "--split", "train", settings=OFFLINE)
    assert lost.code == 2 and "this machine's cache holds only a part of it" in lost.err, lost.err


def test_what_cannot_be_had_is_said_in_one_message(side: Side, data: Path, tmp_path: Path) -> None:
    anonymous = {"HF_TOKEN": None}
    private, gated, empty = side.seed(data), side.seed(data), side.hub.add_repo(side.new()).name
    side.hub.repos[private].private = True
    side.hub.repos[gated].gated = True
    side.hub.commit(empty, {"notes.json": b"{}"})
    for repo, env, words in (
        ("user/nothing", {}, "dataset user/nothing cannot be had from the Hub: there is none that you may see"),
        (private, anonymous, "hf auth login"),
        (private, {"HF_TOKEN": "hf_" + "x" * 20}, "hf auth login"),
        (gated, {}, "is gated"),
        (f"{private}@v9", {}, "has no revision 'v9'"),
        (empty, {}, "there is no manifest.json"),
    ):
        done = side.command("verify", f"hf://datasets/{repo}", "--workers", 1, env=env)
        assert done.code == 2 and words in done.err and "Traceback" not in done.err, (repo, done.err)
    for name in ("--data", "--adapters", "--base-model"):
        named = {"--data": data, "--adapters": CKPT, "--base-model": CKPT / "base", name: "user/nothing"}
        done = side.command("eval", "--out", tmp_path, *(word for pair in named.items() for word in pair))
        assert done.code == 2 and "and there is no folder user/nothing here" in done.err, done.err
        assert f"where:   {name}" in done.err
    with side.hub.down():
        done = side.command("verify", "hf://datasets/user/never")
    assert done.code == 2 and "cannot be reached, and this machine's cache does not hold it" in done.err, done.err
    side.hub.fault("info", 503)
    done = side.command("info", "hf://datasets/user/never2")
    assert done.code == 2 and "cannot be reached" in done.err, done.err
    for words in (["build", "--task", "add", "--max", 2, "--out"], ["export"], ["push", "--repo", "a/b"]):
        done = side.command(*words, "hf://datasets/user/name")
        assert done.code == 2 and "to write to the Hub: caef-data push" in done.err, done.err


@pytest.mark.parametrize(
    "path", ["../../evil.json", "a/../../evil.json", "/evil.json", "a\\evil.json", "\x1b[31m.json"]
)
def test_names_that_lead_out_of_a_repository(side: Side, path: str) -> None:
    repo = side.hub.add_repo(side.new()).name
    side.hub.commit(repo, {"manifest.json": b"{}", path: b"{}"})
    done = side.command("info", f"hf://datasets/{repo}")
    assert done.code == 2 and "names a file that is not inside it" in done.err and "\x1b" not in done.err
    assert not fetched(done.log)


# Adapters


def test_checkpoints_are_found_at_any_depth() -> None:
    config, both = "adapter_config.json", {"a/b/executors/add", "a/b/aligners/add"}
    assert checkpoints([f"executors/add/{config}", f"old/executors/add/{config}"]) == {"": {"executors/add"}}
    assert checkpoints([f"a/b/executors/add/{config}", f"a/b/aligners/add/{config}"]) == {"a/b": both}
    assert list(checkpoints([f"b/aligners/add/{config}", f"a/executors/add/{config}"])) == ["a", "b"]
    assert not checkpoints([config, f"executors/{config}", "executors/add/other.json"])
    one = {f"all/{config}": "", f"a/all/{config}": "a", f"a/b/all/{config}": "a/b"}
    assert [checkpoints([path]) for path in one] == [{root: {f"{root}/all".lstrip("/")}} for root in one.values()]
    assert checkpoints([f"x/all/{config}", f"x/executors/add/{config}"]) == {"x": {"x/all", "x/executors/add"}}


@pytest.mark.parametrize("root", ["", "ckpt/", "release/v2/ckpt/"])
def test_adapters_of_a_repository(side: Side, root: str) -> None:
    files = published(checkpoint_files(), root)
    more = {f"{root}executors/addition/training_args.bin": b"\x80", f"{root}base/modeling.py": b"raise"}
    more |= {f"{root}executors/addition/checkpoint-5/adapter_model.safetensors": b"", "big.safetensors": b"0"}
    repo = model(side, {**files, **more})
    adapters, names, base, said = side.client.call(adapters_of, repo)
    kinds = ("executors", "aligners")
    assert adapters == sorted(f"{kind}/{path.name}" for kind in kinds for path in (CKPT / kind).iterdir())
    assert set(names) == {Path(path).name for path in files} and base.endswith("base") and said == []
    if not root:
        with side.hub.down():
            offline = side.client.call(adapters_of, repo)
        assert offline[:3] == [adapters, names, base]
        [line] = offline[3]
        assert f"hf://{repo}@" in line and line.endswith("is read from this machine's cache")


def test_a_base_model_of_a_repository_at_a_revision(side: Side) -> None:
    files = {path.name: path.read_bytes() for path in (CKPT / "base").iterdir()}
    repo = model(side, {**files, "modeling.py": b"raise", "onnx/model.safetensors": b"", "pytorch_model.bin": b"\x80"})
    side.hub.repos[repo].tags["v1"] = side.hub.repos[repo].branches["main"]
    side.hub.commit(repo, {"config.json": b"{}"})
    before = len(side.hub.log)
    place, folder, sha256 = side.client.call(base_of, f"{repo}@v1")
    assert place == f"{repo}@{side.hub.repos[repo].tags['v1']}" and folder.endswith(side.hub.repos[repo].tags["v1"])
    assert fetched(side.hub.log[before:]) == set(files)
    assert sha256 == side.client.call(base_of, str(CKPT / "base"))[2]


@pytest.mark.parametrize("root", ["", "deep/ckpt/"])
def test_one_adapter_for_all_is_fetched_with_those_of_single_tasks(side: Side, tmp_path: Path, root: str) -> None:
    """It was left on the Hub, so that its tasks were not asked."""
    files = {path.removeprefix("executors/add/"): text for path, text in checkpoint_files().items()}
    one = {f"{root}all/{path}": text for path, text in files.items() if path.startswith("adapter_")}
    base = {f"{root}{path}": text for path, text in files.items() if path.startswith("base/")}
    own = {f"{root}executors/sub/{path}": files[f"executors/sub/{path}"] for path in ("adapter_config.json",)}
    own[f"{root}executors/sub/adapter_model.safetensors"] = files["executors/sub/adapter_model.safetensors"]
    one[f"{root}all/adapter_config.json"] = one[f"{root}all/adapter_config.json"].replace(b"../../base", b"../base")
    adapters, _, _, said = side.client.call(adapters_of, model(side, one | base | own))
    assert {"executors/sub", "executors/add", "aligners/mul"} <= {*adapters}
    assert said == ["executors/sub: asked for their tasks, in place of all/"]
    adapters, *_ = side.client.call(adapters_of, model(side, one | base))
    assert {"executors/sub", "aligners/mul"} <= {*adapters}


def test_several_checkpoints_or_none_are_refused(side: Side, tmp_path: Path) -> None:
    files = checkpoint_files()
    several = model(side, published(files, "one/") | published(files, "two/ckpt/"))
    [told] = side.client.call(adapters_of, several)
    assert "2 checkpoints are in here: one, two/ckpt" in told and f"--adapters hf://{several}/one" in told
    adapters, *_ = side.client.call(adapters_of, f"hf://{several}/two/ckpt")
    assert len(adapters) == 16
    [told] = side.client.call(adapters_of, model(side, {"config.json": b"{}"}))
    assert "there are no adapters in this repository" in told
    for root in ("one", "deep/er/two"):
        shutil.copytree(CKPT / "executors", tmp_path / root / "executors")
    [told] = side.client.call(adapters_of, str(tmp_path))
    assert "2 checkpoints are in here: deep/er/two, one" in told


def test_the_published_set_is_evaluated_as_downloaded(side: Side, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="evaluating a model needs torch, transformers and peft")
    adapters = model(side, published(checkpoint_files(), "caef/ckpt/"))
    rows = [(f"{a}+{b}", a + b) for a, b in ((12, 34), (99, 1), (55, 45), (7, 80))]
    lines = "".join(json.dumps({"prompt": f"{text}=", "response": str(answer)}) + "\n" for text, answer in rows)
    files = {"datasets/raw/addition/test_2_2.jsonl": lines.encode(), "datasets/raw/addition/train.jsonl": b"{}"}
    raw = side.hub.add_repo(side.new()).name
    side.hub.commit(raw, files)
    ours = ["--device", "cpu", "--batch-tokens", 4000, "--out", tmp_path / "results"]
    done = side.command("eval", "--adapters", adapters, "--data", raw, *ours)
    assert done.code == 0, done.err
    assert not any(path.endswith("train.jsonl") for path in fetched(done.log))
    sql = "SELECT mode, sum(n) n, sum(correct) c, sum(correct_stripped) s FROM class_accuracy GROUP BY 1 ORDER BY 1"
    table = side.command("query", sql, "--results", tmp_path / "results", "--format", "json")
    counts = {row["mode"]: (int(row["n"]), int(row["c"]), int(row["s"])) for row in json.loads(table.out)}
    assert set(counts) == {"aligner_in", "aligner_out", "executor", "one_step", "process"}
    assert all(s >= c >= n - 1 and n >= 4 for n, c, s in counts.values()), counts
    here = tmp_path / "here"
    (here / "addition").mkdir(parents=True)
    (here / "addition" / "test_2_2.jsonl").write_text(lines)
    again = side.command("eval", "--adapters", CKPT, "--data", here, *ours)  # the same run: nothing is asked again
    assert again.code == 0 and "it was evaluated before" in again.out, again.out + again.err
