"""``build``: what stands on disk, that every reader reads it, that nothing but the declaration decides on it."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

from caef_data import tm
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags, load_declaration
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.verify import verify
from caef_data.pipelines.versions import SAMPLING_VERSION, SPLIT_VERSION, TEXT_VERSION
from caef_data.schemas import COLUMNS, row_schema
from caef_data.tests.commands import contents

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("train", "test", "stress")
TASKS = ("add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask")
HELPERS = ("reflection", "left_mask")  # they have no raw text
CONFIGS = [
    (task, view)
    for task in TASKS
    for view in ("one_step", "full", "aligner", "raw", "scratchpad", "commands")
    if task not in HELPERS or view not in ("aligner", "raw")
]

Row = dict[str, Any]


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def shards(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, splits in manifest_of(folder)["configs"].items():
        for split, held in splits.items():
            for shard in held["shards"]:
                yield name, split, shard


def rows_of(folder: Path, name: str, split: str) -> list[Row]:
    paths = sorted((folder / name).glob(f"{split}-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def front_matter(folder: Path) -> dict[str, Any]:
    _, text, _ = (folder / "README.md").read_text().split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def test_every_config_is_listed(smoke: Path) -> None:
    configs = manifest_of(smoke)["configs"]
    assert {(name, split) for name in configs for split in configs[name]} == {
        (f"{task}-{view}", split) for task, view in CONFIGS for split in SPLITS
    }
    on_disk = {path for path in contents(smoke) if path not in ("manifest.json", "README.md")}
    assert on_disk == {shard["path"] for _, _, shard in shards(smoke)}
    for name, split, shard in shards(smoke):
        assert shard["path"].startswith(f"{name}/{split}-0")


def test_the_manifest_is_true(smoke: Path) -> None:
    manifest = manifest_of(smoke)
    versions = {"text": TEXT_VERSION, "split": SPLIT_VERSION, "sampling": SAMPLING_VERSION}
    assert manifest["versions"] == versions
    assert set(manifest["tasks"]) == set(TASKS)
    for _, _, shard in shards(smoke):
        data = (smoke / shard["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
        assert pq.read_metadata(smoke / shard["path"]).num_rows == shard["rows"]
    for name, splits in manifest["configs"].items():
        for split, held in splits.items():
            rows = rows_of(smoke, name, split)
            assert held["rows"] == sum(shard["rows"] for shard in held["shards"]) == len(rows)
            assert held["bytes"] == sum(shard["bytes"] for shard in held["shards"])
            assert held["expressions"] == len({(row["a"], row["b"]) for row in rows})
            assert held["classes"] == len({(row["len_a"], row["len_b"]) for row in rows}), (name, split)
            for text in ("prompt", "completion"):
                sizes = [len(row[text]) for row in rows]
                assert held["chars"][text]["max"] == max(sizes)
                assert held["chars"][text]["mean"] == pytest.approx(sum(sizes) / len(sizes), abs=0.06)


def test_schemas_on_disk_are_the_declared_ones_with_plain_strings(smoke: Path) -> None:
    for name, _, shard in shards(smoke):
        view = name.rpartition("-")[2]
        found = pq.read_schema(smoke / shard["path"])
        assert found.names == row_schema(view).names
        for field, declared in zip(found, row_schema(view), strict=True):
            kind = declared.type
            assert field.type == (kind.value_type if pa.types.is_dictionary(kind) else kind), field
            assert field.metadata[b"description"].decode() == COLUMNS[view][field.name][1]


def test_repeating_columns_are_dictionary_encoded(smoke: Path) -> None:
    # Parquet's writer quietly falls back to plain strings (and to bytes that differ from run to run) where an Arrow
    # dictionary holds a value twice.
    for name, _, shard in shards(smoke):
        schema = row_schema(name.rpartition("-")[2])
        repeating = {field.name for field in schema if pa.types.is_dictionary(field.type)}
        metadata = pq.read_metadata(smoke / shard["path"])
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                column = metadata.row_group(group).column(index)
                if column.path_in_schema in repeating:
                    assert "RLE_DICTIONARY" in column.encodings, (shard["path"], column.path_in_schema)


def test_columns_tell_what_the_rows_are(smoke: Path) -> None:
    for task, view in CONFIGS:
        instructions = set()
        for split in SPLITS:
            for row in rows_of(smoke, f"{task}-{view}", split):
                assert row["task"] == task
                assert row["len_a"] == len(row["a"])
                assert row["len_b"] == len(row["b"] or "")
                assert (row["b"] is None) == (task == "left_mask")
                assert row["variant"]
                instructions.add(row["instruction"])
        assert len(instructions) == 1
        assert len(instructions.pop()) > 40


def test_no_expression_twice_and_none_in_two_splits(smoke: Path) -> None:
    for task, view in CONFIGS:
        found = {split: rows_of(smoke, f"{task}-{view}", split) for split in SPLITS}
        sides = {split: {(row["a"], row["b"]) for row in rows} for split, rows in found.items()}
        for split, rows in found.items():
            if view not in ("one_step", "aligner"):
                assert len(sides[split]) == len(rows)
            assert len({row["prompt"] for row in rows}) == len(rows)
        if task in ("add", "mul", "equal"):  # a + b and b + a count as one
            sides = {split: side | {(b, a) for a, b in side} for split, side in sides.items()}
        assert not sides["train"] & sides["test"]
        assert not sides["train"] & sides["stress"]
        assert not sides["test"] & sides["stress"]


def test_views_of_a_task_agree(smoke: Path) -> None:
    for task in TASKS:
        for split in SPLITS:
            full = {(row["a"], row["b"]): row for row in rows_of(smoke, f"{task}-full", split)}
            for view, lines in (("scratchpad", slice(None)), ("commands", slice(1, 2))):
                rows = rows_of(smoke, f"{task}-{view}", split)
                assert {(row["a"], row["b"]) for row in rows} == set(full)
                for row in rows:
                    run = full[row["a"], row["b"]]
                    entries = [entry.removesuffix("\n") for entry in run["trace"]]
                    texts = ["\n".join(entry.split("\n")[lines]) for entry in entries[:-1]] + entries[-1:]
                    assert row["prompt"] == run["prompt"]
                    assert row["completion"] == "".join(f"{text}\n" for text in texts)
                    assert row["variant"] == run["variant"]
            for run in full.values():
                assert len(run["trace"]) == run["n_steps"]
                assert run["trace"][-1] == run["completion"]
            together = 0
            for row in rows_of(smoke, f"{task}-one_step", split):
                if run := full.get((row["a"], row["b"])):
                    together += 1
                    assert row["n_steps"] == run["n_steps"]
                    assert row["completion"] == run["trace"][row["step"]]
                    assert row["step"] > 0 or row["prompt"] == run["prompt"]
            assert together or task in ("mul", "div")


def test_aligner_and_raw_agree_with_the_runs(smoke: Path) -> None:
    for task, view in CONFIGS:
        if view != "aligner":
            continue
        for split in SPLITS:
            rows = rows_of(smoke, f"{task}-aligner", split)
            into = {(row["a"], row["b"]): row for row in rows if row["direction"] == "in"}
            out = {(row["a"], row["b"]): row for row in rows if row["direction"] == "out"}
            assert len(into) + len(out) == len(rows)
            raw = {(row["a"], row["b"]): row for row in rows_of(smoke, f"{task}-raw", split)}
            assert set(raw) == set(into) == set(out)
            for key, row in raw.items():
                assert row["prompt"] == into[key]["prompt"]
                assert out[key]["completion"] == row["prompt"] + row["completion"]
            runs = rows_of(smoke, f"{task}-full", split)
            assert any((run["a"], run["b"]) in raw for run in runs)
            for run in runs:
                key = run["a"], run["b"]
                if key in raw:
                    assert into[key]["completion"] == run["prompt"]
                    assert out[key]["prompt"] == run["completion"]


@pytest.mark.parametrize("workers", [2, 3])
def test_bytes_do_not_depend_on_the_workers(smoke: Path, tmp_path: Path, workers: int) -> None:
    out = tmp_path / "again"
    command = [sys.executable, "-m", "caef_data", "build", "smoke", "--out", out, "--workers", str(workers)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    assert contents(out) == contents(smoke)


def test_building_again_changes_nothing(smoke: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    plan = make_plan(load_declaration("smoke"))
    build(plan, out, workers=1)
    assert contents(out) == contents(smoke)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    results = build(plan, out, workers=3)
    assert all(result.built == 0 and result.kept for result in results)
    assert contents(out) == contents(smoke)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == times


def test_verify_finds_nothing(smoke: Path) -> None:
    report = verify(smoke, workers=1)
    assert report.ok, report.findings
    assert report.rows == sum(shard["rows"] for _, _, shard in shards(smoke))


def test_the_card_lists_every_config(smoke: Path) -> None:
    values = front_matter(smoke)
    listed = {
        (config["config_name"], file["split"], file["path"])
        for config in values["configs"]
        for file in config["data_files"]
    }
    assert listed == {
        (f"{task}-{view}", split, f"{task}-{view}/{split}-*.parquet") for task, view in CONFIGS for split in SPLITS
    }
    total = sum(shard["rows"] for _, _, shard in shards(smoke))
    assert values["license"] == "apache-2.0"
    assert values["size_categories"] == ["n<1K" if total < 1000 else "1K<n<10K" if total < 10_000 else "10K<n<100K"]
    card = (smoke / "README.md").read_text()
    for view in {view for _, view in CONFIGS}:
        for column, (_, meaning) in COLUMNS[view].items():
            assert f"- `{column}`: {meaning}" in card, view
    assert "caef-data build smoke" in card
    assert manifest_of(smoke)["identity"] in card


LOAD = """
import json, sys
from pathlib import Path
import datasets, pyarrow.parquet as pq
datasets.disable_progress_bars()
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    splits = json.loads((folder / "manifest.json").read_text())["configs"][name]
    for split, held in splits.items():
        local = pq.read_table([folder / shard["path"] for shard in held["shards"]])
        loaded = datasets.load_dataset(str(folder), name, split=split)
        assert loaded.column_names == local.column_names, (name, split)
        assert loaded.data.table.to_pydict() == local.to_pydict(), (name, split)
    if name.endswith("-full"):
        assert isinstance(loaded[0]["trace"], list) and loaded[0]["trace"][-1] == loaded[0]["completion"]
    print(name)
"""


@pytest.mark.parametrize(
    "tasks",
    [pytest.param(("mul", "left_mask"), id="some"), pytest.param(tuple(TASKS), id="all", marks=pytest.mark.long)],
)
def test_hugging_face_datasets_loads_configs_offline(tasks: tuple[str, ...], smoke: Path, tmp_path: Path) -> None:
    names = [f"{task}-{view}" for task, view in CONFIGS if task in tasks]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_DATASETS_OFFLINE": "1"}
    # from the repository's root, where the folder `datasets` must not hide the library
    result = subprocess.run(
        [sys.executable, "-c", LOAD, smoke, *names],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == names


def test_the_folder_datasets_holds_declarations_only() -> None:
    assert {path.suffix for path in (ROOT / "datasets").iterdir() if path.name != "__pycache__"} == {".toml"}
    code = "import datasets; print(datasets.load_dataset.__module__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.stdout.strip() == "datasets.load", result.stderr


@pytest.mark.parametrize("name", ["mul-one_step", "add-full", "left_mask-one_step", "sub-aligner"])
def test_other_readers_read_the_globs(smoke: Path, name: str) -> None:
    for split in SPLITS:
        expected = rows_of(smoke, name, split)
        pattern = str(smoke / name / f"{split}-*.parquet")
        assert pl.read_parquet(pattern).to_dicts() == expected
        assert pl.scan_parquet(pattern).collect().to_dicts() == expected
        found = duckdb.sql(f"SELECT * FROM read_parquet('{pattern}')").to_arrow_table()
        assert found.to_pylist() == expected
        files = sorted(str(path) for path in (smoke / name).glob(f"{split}-*.parquet"))
        assert ds.dataset(files).to_table().to_pylist() == expected


def test_counting_with_duckdb_over_all_configs(smoke: Path) -> None:
    found = duckdb.sql(f"SELECT task, count(*) FROM read_parquet('{smoke}/*-one_step/*.parquet') GROUP BY 1").fetchall()
    counts = Counter[str]()
    for name, _, shard in shards(smoke):
        if name.endswith("-one_step"):
            counts[name.removesuffix("-one_step")] += shard["rows"]
    assert dict(found) == counts


def test_configs_add_up_in_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "data"
    range_: dict[str, Any] = {"min": 1, "max": 3, "num": 3}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("add", {"splits": ["train"], "views": ["one_step"]}),
        ("sub", {"splits": ["train"]}),
        ("add", {"splits": ["train"], "views": ["raw"]}),
        ("add", {"splits": ["test"], "views": ["one_step", "full"]}),
        ("sub", {"splits": ["stress"], "views": ["commands"]}),
    ]
    before: dict[str, tuple[bytes, int]] = {}
    for task, settings in steps:
        build(make_plan(from_flags([task], **range_, **settings)), out, workers=1)
        paths = {shard["path"]: out / shard["path"] for _, _, shard in shards(out)}
        found = {name: (path.read_bytes(), path.stat().st_mtime_ns) for name, path in paths.items()}
        assert found.items() >= before.items()
        assert len(found) > len(before)
        before = found
    listed = {(c["config_name"], f["split"]) for c in front_matter(out)["configs"] for f in c["data_files"]}
    assert listed == {
        ("add-one_step", "train"), ("add-one_step", "test"), ("add-raw", "train"), ("add-full", "test"),
        ("sub-one_step", "train"), ("sub-aligner", "train"), ("sub-commands", "stress"),
    }  # fmt: skip
    card = (out / "README.md").read_text()
    assert card.count("    caef-data build --task add") == 3
    assert verify(out, workers=1).ok
    once = tmp_path / "once"
    build(make_plan(from_flags(["add"], **range_, splits=["train"], views=["one_step", "raw"])), once, workers=1)
    for path, data in contents(once).items():
        if path.endswith(".parquet"):
            assert before[path][0] == data


def test_a_shard_alone_is_a_fair_sample(tmp_path: Path) -> None:
    out = tmp_path / "data"
    flags = from_flags(
        ["greater_than"],
        min=1,
        max=6,
        num=40,
        splits=["train"],
        views=["one_step", "raw"],
        rows_per_shard=400,
    )
    build(make_plan(flags), out, workers=1)
    for name in ("greater_than-raw", "greater_than-one_step"):
        files = [out / shard["path"] for found, _, shard in shards(out) if found == name]
        assert len(files) >= 4
        counts = []
        for file in files:
            rows = pq.read_table(file).to_pylist()
            assert len(rows) <= 1.5 * 400  # the number of rows is an estimate from a sample
            counts.append(Counter((a, b, v) for _, _, a, b, v in {
                (row["a"], row["b"], row["len_a"], row["len_b"], row["variant"]) for row in rows
            }))  # fmt: skip
            lengths = [(row["len_a"], row["len_b"]) for row in rows]
            neighbours = sum(one == other for one, other in zip(lengths, lengths[1:], strict=False))
            assert neighbours < len(rows) / 3, "the rows of a class stand together"
        for key in set().union(*counts):
            assert max(count[key] for count in counts) - min(count[key] for count in counts) <= 1, key


def test_steps_that_fit_no_integer_column_are_null(tmp_path: Path) -> None:
    out = tmp_path / "data"
    flags = from_flags(["mul"], min=17, max=23, num=1, splits=["train"], views=["one_step"])
    build(make_plan(flags), out, workers=1)
    rows = rows_of(out, "mul-one_step", "train")
    machine, seen = tm.machine("mul"), Counter[tuple[bool, bool]]()
    for row in rows:
        steps = machine.num_steps(int(row["a"]), int(row["b"]))
        seen[row["n_steps"] is None, row["step"] is None] += 1
        assert row["n_steps"] == (steps if steps < 2**63 else None)
        if row["step"] is not None:
            found = tm.transition("mul", row["a"], row["b"], row["step"])
            assert (found.prompt, found.completion) == (row["prompt"], row["completion"])
        else:
            assert steps > 2**63
            last = tm.transition("mul", row["a"], row["b"], steps - 1)
            assert row["next_state"] != "qH" or row["completion"] == last.completion
    assert set(seen) == {(False, False), (True, False), (True, True)}
