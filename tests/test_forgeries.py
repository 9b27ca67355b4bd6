"""``caef-data verify`` finds datasets that are consistent in themselves, but not what their declaration gives."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caef_data.errors import UserError
from caef_data.pipelines import verify_manifest, versions
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.verify import verify
from caef_data.pipelines.verify_report import CHECKS, Report
from caef_data.tests.forging import Forger, Rows

TASKS = ["add", "sub", "mul", "left_mask"]
OLD = Path(__file__).with_name("data") / "dataset_0_1_0"
Forgery = Callable[[Forger], object]


def made(folder: Path, tasks: list[str], most: int) -> Path:
    """Build a dataset of several shards; tests copy it."""
    settings = from_flags(tasks, max=most, num=3, splits=["train", "test", "stress"], rows_per_shard=60)
    build(make_plan(settings), folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("built") / "data", TASKS, 2)


@pytest.fixture(scope="module")
def built_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("small") / "data", ["add", "sub"], 1)


@pytest.fixture
def forger(built: Path, tmp_path: Path) -> Forger:
    shutil.copytree(built, tmp_path / "data")
    return Forger(tmp_path / "data")


@pytest.fixture
def small(built_small: Path, tmp_path: Path) -> Forger:
    shutil.copytree(built_small, tmp_path / "data")
    return Forger(tmp_path / "data")


def checked(forger: Forger, **options: Any) -> Report:
    return verify(forger.path, **({"workers": 1} | options))


def kinds(report: Report) -> set[str]:
    return {finding.kind for finding in report.findings}


def test_what_was_built_is_right_and_rewritten_the_same_it_stays_right(forger: Forger) -> None:
    assert checked(forger).findings == ()
    for config, split in (("add-one_step", "train"), ("sub-full", "test"), ("mul-aligner", "stress")):
        forger.change(config, split, list)
    assert checked(forger).findings == ()


# ------------------------------------------------------------------------------------------------------ what rows say


def each(name: str, value: Callable[[dict[str, Any]], Any], only: slice = slice(None)) -> Callable[[Rows], Rows]:
    """Return a change that sets a column in some rows."""

    def change(rows: Rows) -> Rows:
        for row in rows[only]:
            row[name] = value(row)
        return rows

    return change


def first_shard(config: str, split: str, change: Callable[[Rows], Rows]) -> Forgery:
    def forge(forger: Forger) -> None:
        shards = forger.rows(config, split)
        forger.write(config, split, [change(shards[0]), *shards[1:]])

    return forge


def everywhere(config: str, split: str, change: Callable[[Rows], Rows]) -> Forgery:
    return lambda forger: forger.change(config, split, change)


def has_carry(row: dict[str, Any]) -> bool:
    carry = 0
    for a, b in zip(row["a"][::-1], row["b"][::-1], strict=False):
        carry |= int(a) + int(b) >= 10
    return bool(carry)


def keep(test: Callable[[dict[str, Any]], bool]) -> Callable[[Rows], Rows]:
    return lambda rows: [row for row in rows if test(row)]


def other_instruction(forger: Forger) -> None:
    for config in sorted(path.name for path in forger.path.glob("add-*")):
        for split in ("train", "test", "stress"):
            if list((forger.path / config).glob(f"{split}-*")):
                forger.change(config, split, each("instruction", lambda row: "Add the numbers.\n\n"))


def swapped_between_shards(forger: Forger) -> None:
    one, other, *rest = forger.rows("add-one_step", "train")
    one[3], other[5] = other[5], one[3]
    forger.write("add-one_step", "train", [one, other, *rest])


def easy_first(forger: Forger) -> None:
    shards = forger.rows("sub-one_step", "train")
    rows = sorted((row for rows in shards for row in rows), key=lambda row: (row["len_a"], row["len_b"]))
    cuts = [0]
    for shard in shards:
        cuts.append(cuts[-1] + len(shard))
    forger.write("sub-one_step", "train", [rows[a:b] for a, b in zip(cuts, cuts[1:], strict=False)])


def replaced_by_train(forger: Forger) -> None:
    """A test row becomes one of train, which is right in itself."""
    train = forger.rows("mul-raw", "test")  # same view, another expression of the same side
    train[0][0] = dict(train[0][1])
    forger.write("mul-raw", "test", train)


def retyped(forger: Forger, name: str = "step", kind: pa.DataType = pa.float64()) -> None:  # noqa: B008
    schema = pq.read_schema(next((forger.path / "add-one_step").glob("train-*")))
    at = schema.get_field_index(name)
    shards = forger.rows("add-one_step", "train")
    forger.write("add-one_step", "train", shards, schema.set(at, pa.field(name, kind)))


ROWS: dict[str, tuple[Forgery, str]] = {
    "variant of one row": (
        first_shard("add-one_step", "train", each("variant", lambda row: "big", slice(4, 5))),
        "variant",
    ),
    "variant of all rows": (everywhere("mul-one_step", "test", each("variant", lambda row: "big")), "variant"),
    "variant of stress": (everywhere("add-full", "stress", each("variant", lambda row: "all_nines")), "variant"),
    "hostile variant": (everywhere("sub-raw", "test", each("variant", lambda row: "\x1b[31m$(rm)")), "variant"),
    "no variant": (first_shard("add-raw", "test", each("variant", lambda row: None, slice(1))), "variant"),
    "instruction of a config": (
        everywhere("sub-one_step", "train", each("instruction", lambda row: "Go.")),
        "instruction",
    ),
    "instruction of a task": (other_instruction, "instruction"),
    "instruction of one row": (
        first_shard("add-full", "test", each("instruction", lambda row: "Go.", slice(2, 3))),
        "instruction",
    ),
    "aligner out dropped": (everywhere("add-aligner", "train", keep(lambda row: row["direction"] == "in")), "missing"),
    "half of the rows": (everywhere("add-one_step", "train", lambda rows: rows[::2]), "missing"),
    "half of all expressions": (everywhere("sub-aligner", "test", keep(lambda row: int(row["a"]) % 2 == 0)), "missing"),
    "a class": (everywhere("mul-one_step", "train", keep(lambda row: row["len_a"] < 2)), "missing"),
    "carries": (everywhere("add-full", "test", keep(lambda row: not has_carry(row))), "missing"),
    "the last row": (lambda forger: forger.write("add-raw", "test", _without_last(forger)), "missing"),
    "a shard emptied": (first_shard("sub-one_step", "train", lambda rows: []), "missing"),
    "easy first": (easy_first, "missing"),  # over shards: each lacks some, and has others
    "easy first in each shard": (
        everywhere("add-one_step", "train", lambda rows: sorted(rows, key=lambda row: row["len_a"])),
        "order",
    ),
    "two rows swapped": (first_shard("left_mask-full", "test", lambda rows: [rows[1], rows[0], *rows[2:]]), "order"),
    "swapped between shards": (swapped_between_shards, "added"),
    "a row doubled": (first_shard("sub-one_step", "test", lambda rows: [*rows, dict(rows[0])]), "added"),
    "a row for another": (replaced_by_train, "missing"),
    "another task": (first_shard("add-full", "test", each("task", lambda row: "sub", slice(1))), "row"),
    "len_a": (first_shard("mul-raw", "test", each("len_a", lambda row: row["len_a"] + 1, slice(1))), "row"),
    "len_b": (first_shard("mul-one_step", "train", each("len_b", lambda row: None, slice(3, 4))), "row"),
    "step as float": (retyped, "schema"),
    "len_a as text": (lambda forger: retyped(forger, "n_steps", pa.int32()), "schema"),
}  # fmt: skip


def _without_last(forger: Forger) -> list[Rows]:
    *shards, last = forger.rows("add-raw", "test")
    return [*shards, last[:-1]]


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_the_declaration_does_not_give(forger: Forger, name: str) -> None:
    forge, kind = ROWS[name]
    forge(forger)
    report = checked(forger)
    assert kind in kinds(report), report.findings
    assert kinds(report) <= {kind for known in CHECKS.values() for kind in known}
    assert kinds(report) <= {kind, "counts", "missing", "added", "duplicate", "row"}
    assert "\x1b" not in " ".join(finding.message for finding in report.findings)


# ---------------------------------------------------------------------------------------------- what the manifest says


def dropped(forger: Forger, *configs: str, split: str | None = None) -> None:
    """Drop configs, or one split of them, files and all."""
    manifest = forger.manifest()
    for config in configs:
        for path in (forger.path / config).glob(f"{split or ''}*"):
            path.unlink()
        if split is None:
            manifest["configs"].pop(config)
        else:
            manifest["configs"][config].pop(split)
    forger.save(manifest)


def of_manifest(change: Callable[[dict[str, Any]], object]) -> Forgery:
    def forge(forger: Forger) -> None:
        manifest = forger.manifest()
        change(manifest)
        forger.save(manifest)

    return forge


def train(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["configs"]["add-one_step"]["train"]
    return found


def foreign_config(forger: Forger, config: str = "add-scratchpad", task: str = "add", **how: Any) -> None:
    """Add a config whose rows are right, as another build makes them."""
    other = forger.path.parent / "other"
    build(make_plan(from_flags([task], max=1, num=3, views=[config.rpartition("-")[2]], **how)), other, workers=1)
    added = Forger(other).manifest()
    shutil.copytree(other / config, forger.path / config)
    manifest = forger.manifest()
    manifest["configs"][config] = added["configs"][config]
    for split in manifest["configs"][config].values():
        split["command"] = train(manifest)["command"]
    manifest["tasks"].setdefault(task, added["tasks"][task])
    forger.save(manifest)


MANIFEST: dict[str, tuple[Forgery, str]] = {
    "a config": (lambda forger: dropped(forger, "add-full"), "missing"),
    "a split": (lambda forger: dropped(forger, "sub-one_step", split="test"), "missing"),
    "all of a task": (lambda forger: dropped(forger, *(p.name for p in forger.path.glob("sub-*"))), "missing"),
    "a config more": (foreign_config, "added"),
    "a config of other settings": (lambda forger: foreign_config(forger, "add-commands", seed=7), "identity"),
    "classes": (of_manifest(lambda one: train(one).update(classes=8)), "counts"),
    "expressions": (of_manifest(lambda one: train(one).update(expressions=8)), "counts"),
    "rows": (of_manifest(lambda one: train(one).update(rows=8)), "manifest"),
    "bytes": (of_manifest(lambda one: train(one).update(bytes=8)), "manifest"),
    "characters": (of_manifest(lambda one: train(one)["chars"]["prompt"].update(max=8)), "counts"),
    "characters of a shard": (
        of_manifest(lambda one: train(one)["shards"][0]["chars"].update(prompt=[1, 1])),
        "counts",
    ),
    "order of shards": (of_manifest(lambda one: train(one)["shards"].reverse()), "order"),
    "setting alone": (of_manifest(lambda one: one["tasks"]["add"]["settings"].update(num=4)), "identity"),
    "setting and identities": (lambda forger: forger.settings("add", num=4), "counts"),
    "seed and identities": (lambda forger: forger.settings("add", seed=7), "missing"),
    "dialect": (of_manifest(lambda one: one["tasks"]["sub"]["settings"].update(dialect="klingon")), "settings"),
    "other dialect": (lambda forger: forger.settings("sub", dialect="published"), "row"),
    "unknown setting": (of_manifest(lambda one: one["tasks"]["sub"]["settings"].update(depth=3)), "settings"),
    "long name of a task": (
        of_manifest(lambda one: one["tasks"]["sub"]["settings"].update(task="subtraction")),
        "settings",
    ),
    "settings of another task": (of_manifest(lambda one: one["tasks"].update(sub=one["tasks"]["add"])), "settings"),
    "identity of a task": (of_manifest(lambda one: one["tasks"]["add"].update(identity="0" * 16)), "identity"),
    "identity of a config": (of_manifest(lambda one: train(one).update(identity="0" * 16)), "identity"),
    "version of caef-data": (of_manifest(lambda one: one.update(caef_data="9.9.9")), "versions"),
    "an unknown task": (of_manifest(lambda one: one["tasks"].update(klingon=one["tasks"]["add"])), "machine"),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFEST)
def test_manifests_that_the_declaration_does_not_give(small: Forger, name: str) -> None:
    forge, kind = MANIFEST[name]
    forge(small)
    assert kind in kinds(checked(small)), checked(small).findings


def test_the_identity_of_all_is_that_of_its_configs(small: Forger) -> None:
    path = small.path / "manifest.json"
    path.write_text(path.read_text().replace(small.manifest()["identity"], "0" * 16))
    assert "identity" in kinds(checked(small))


def test_a_fraction_of_the_rows_still_proves_completeness(small: Forger) -> None:
    small.change("add-one_step", "train", lambda rows: rows[:-1])
    assert "missing" in kinds(checked(small, fraction=0.01))


# ----------------------------------------------------------------------------------------------------------- the card


def of_card(old: str, new: str) -> Forgery:
    def forge(forger: Forger) -> None:
        path = forger.path / "README.md"
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return forge


CARD: dict[str, Forgery] = {
    "missing": lambda forger: (forger.path / "README.md").unlink(),
    "empty": lambda forger: (forger.path / "README.md").write_text(""),
    "of another dataset": of_card("with these versions the same bytes", "somehow"),
    "sizes": of_card("size_categories:\n- n<1K", "size_categories:\n- 1M<n<10M"),
    "a config's files": of_card("path: add-full/test-*.parquet", "path: add-full/train-*.parquet"),
    "the content of a config": of_card("  version: 0.0.", "  version: 0.0.1"),
    "broken YAML": of_card("license: apache-2.0", "license: [apache-2.0"),
    "no text": lambda forger: (forger.path / "README.md").write_bytes(b"\xff\xfe"),
    "a mark twice": of_card("## Licence", "<!-- caef-data: end -->\n## Licence"),
    "the rows shown": of_card("prompt:\nADD", "prompt:\nADE"),
}


@pytest.mark.parametrize("name", CARD)
def test_a_card_that_is_not_the_manifests(small: Forger, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_manifest, "UNMARKED", ())
    CARD[name](small)
    assert kinds(checked(small)) == {"card"}


def test_what_a_person_writes_in_a_card_is_theirs(small: Forger) -> None:
    of_card("license: apache-2.0", "license: mit\nannotations_creators:\n- me")(small)
    of_card("# Arithmetic", "# My own\n\nSome notes.\n\n# Arithmetic")(small)
    of_card("## Licence", "## Thanks\n\nto all\n\n## Licence")(small)
    of_card("rows = load_dataset(", 'rows = load_dataset("me/data", "add-one_step")  # (')(small)
    assert checked(small).ok
    (small.path / "add-full" / "test-00000-of-00001.parquet").write_bytes(b"no Parquet")
    assert kinds(checked(small)) == {"file"}  # the row that the card shows of it cannot be read


# ------------------------------------------------------------------------------------------------- earlier and later


def test_a_dataset_of_0_1_0(tmp_path: Path) -> None:
    """The dataset was built by caef-data 0.1.0; its card has no marks."""
    shutil.copytree(OLD, tmp_path / "data")
    forger = Forger(tmp_path / "data")
    report = checked(forger)
    assert report.ok and report.rows_checked == report.rows > 100
    (note,) = report.notes
    assert note.startswith("README.md is a card of caef-data 0.1.0")
    dropped_file = forger.path / "add-raw" / "test-00000-of-00001.parquet"
    dropped_file.unlink()
    assert kinds(checked(forger)) == {"file"}


@pytest.mark.parametrize("rule", ["TEXT", "SPLIT", "SAMPLING"])
def test_rules_of_another_version_are_replayed_by_the_version_that_has_them(
    small: Forger, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.setattr(versions, f"{rule}_VERSION", 2)
    with pytest.raises(UserError, match=f"(?s)made by the rules .*{rule.lower()} 1.*verify it with caef-data '"):
        checked(small)
    monkeypatch.undo()
    manifest = small.manifest()
    manifest["versions"].pop(rule.lower())
    small.save(manifest)
    with pytest.raises(UserError, match="made by the rules"):
        checked(small)
