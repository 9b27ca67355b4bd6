"""What people write in README.md, in the folder or at the target of a push, survives; conflicts move nothing."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from caef_data.pipelines.card_merge import OURS, Card, UnmarkedError, newer
from caef_data.pipelines.manifest import json_bytes
from caef_data.pipelines.push.store import _Push
from caef_data.pipelines.store import open_folder
from caef_data.tests.commands import call, contents
from caef_data.tests.pushing import UPLOADS, WRITES, Side, make_folder

LICENCE = ("license: apache-2.0", "license: mit")
NOTES = ("## Licence and citation", "## My notes\n\nMeasured on a Tuesday.\n\n## Licence and citation")
OTHER = ("# Arithmetic", "An introduction.\n\n# Arithmetic")
OLD = Path(__file__).with_name("data") / "dataset_0_1_0"


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with Side(tmp_path_factory.mktemp("hub"), xet=False) as one:
        yield one
        one.check()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("built") / "data", views=["one_step"])


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "data")
    return tmp_path / "data"


class Remote:
    """A repository, and what people do on its page."""

    def __init__(self, side: Side) -> None:
        self.side, self.repo = side, side.new()

    @property
    def text(self) -> str:
        return self.side.hub.files(self.repo)["README.md"].decode()

    def edit(self, *changes: tuple[str, str]) -> str:
        text = changed(self.text, *changes)
        self.side.hub.commit(self.repo, {"README.md": text.encode()})
        return text

    def push(self, folder: Path) -> dict[str, list[str]]:
        report: dict[str, list[str]] = json.loads(self.side.push(folder, "--repo", self.repo, "--json").out)
        return report


def changed(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def edit(folder: Path, *changes: tuple[str, str]) -> None:
    (folder / "README.md").write_text(changed((folder / "README.md").read_text(), *changes))


def test_what_was_written_on_the_hub_stays(side: Side, data: Path) -> None:
    remote = Remote(side)
    assert "card" not in remote.push(data)
    text = remote.edit(LICENCE, NOTES)
    tags = side.tags(remote.repo)
    done = side.push(data, "--repo", remote.repo, "--json")
    assert not done.requests(*UPLOADS, *WRITES)
    assert "keeps what was written" in json.loads(done.out)["card"]
    assert json.loads(done.out)["changed"] == [] and remote.text == text and side.tags(remote.repo) == tags
    # another dataset into the same repository: our part is new, theirs stays
    other = make_folder(data.parent / "other", views=["one_step"], seed=7)
    assert "README.md" in remote.push(other)["changed"]
    assert "license: mit" in remote.text and NOTES[1] in remote.text and remote.text != text
    assert open_folder(other).manifest()["identity"] in remote.text


def test_what_was_written_in_the_folder_arrives_and_goes_on(side: Side, data: Path) -> None:
    remote = Remote(side)
    edit(data, NOTES)
    remote.push(data)
    assert NOTES[1] in remote.text
    edit(data, LICENCE)  # the same folder again: nobody touched the card there
    assert set(remote.push(data)["changed"]) == {"README.md", "manifest.json"}
    assert "license: mit" in remote.text and NOTES[1] in remote.text
    text = remote.edit(OTHER)
    assert remote.push(data)["changed"] == [] and remote.text == text
    plain = make_folder(data.parent / "plain", views=["one_step"])  # elsewhere, by somebody who wrote nothing
    assert remote.push(plain)["changed"] == [] and remote.text == text


def test_edits_here_and_there_are_a_conflict_that_can_be_solved(side: Side, data: Path) -> None:
    remote = Remote(side)
    remote.push(data)
    text = remote.edit(LICENCE)
    edit(data, NOTES)
    for words in ([], ["--dry-run"]):
        done = side.run(data, "--repo", remote.repo, *words)
        assert done.code == 2 and "changed there, and the README.md of the folder as well" in done.err
        assert "put the one from there in its place" in done.err and not done.requests(*UPLOADS, *WRITES)
    assert remote.text == text
    (data / "README.md").write_text(text)  # as the message says
    remote.push(data)
    edit(data, NOTES)
    remote.push(data)
    assert "license: mit" in remote.text and NOTES[1] in remote.text


def test_a_card_without_our_part_is_a_conflict(side: Side, data: Path) -> None:
    remote = Remote(side)
    remote.push(data)
    remote.edit(("<!-- caef-data: begin -->", ""))
    done = side.run(data, "--repo", remote.repo)
    assert done.code == 2 and "<!-- caef-data: begin -->" in done.err and not done.requests(*UPLOADS, *WRITES)
    edit(data, ("<!-- caef-data: end -->", ""))
    done = side.run(data, "--repo", side.new())
    assert done.code == 2 and "without losing" in done.err and done.log == []


def test_a_card_without_our_part_is_mended_as_the_message_says(side: Side, data: Path) -> None:
    remote, marks = Remote(side), b"<!-- caef-data: begin -->\n<!-- caef-data: end -->\n"
    remote.push(data)
    for text, mended, advice in (
        (b"# Mine\n", b"# Mine\n" + marks, "write the lines <!-- caef-data: begin --> and <!-- caef-data: end -->"),
        (b"# Mine\n", None, "or move the file away"),
        (b"# M\xefne\n" + marks, "# M\xefne\n".encode() + marks, "save it as UTF-8"),
    ):
        side.hub.commit(remote.repo, {"README.md": text})
        done = side.run(data, "--repo", remote.repo, "--dry-run")
        assert done.code == 2 and advice in done.err
        side.hub.commit(remote.repo, {"README.md": mended})
        remote.push(data)
        assert "config_name: sub-one_step" in remote.text
        assert remote.text.startswith("---\nsize_categories") == (mended is not None)
        assert mended is None or mended.decode().partition("\n")[0] in remote.text


def test_what_a_new_repository_says_stays(side: Side, data: Path) -> None:
    remote = Remote(side)
    side.hub.add_repo(remote.repo)
    side.hub.commit(remote.repo, {"README.md": b"---\nlicense: cc0-1.0\n---\n# Soon\n"})
    remote.push(data)
    assert remote.text.startswith("---\nlicense: cc0-1.0\n") and "# Soon\n" in remote.text
    assert "config_name: sub-one_step" in remote.text and remote.text.count("caef-data: begin") == 1
    assert remote.push(data)["changed"] == []
    broken = side.hub.add_repo(side.new()).name
    side.hub.commit(broken, {"README.md": b"---\nlicense: [\n---\n# Soon\n"})
    done = side.run(data, "--repo", broken)
    assert done.code == 2 and "the YAML at its top cannot be read" in done.err and "Traceback" not in done.err


def test_a_card_of_0_1_0_is_left_alone(side: Side, data: Path) -> None:
    remote = Remote(side)
    side.hub.add_repo(remote.repo)
    files = {path.relative_to(OLD).as_posix(): path.read_bytes() for path in OLD.rglob("*") if path.is_file()}
    side.hub.commit(remote.repo, files)
    done = side.run(data, "--repo", remote.repo)
    assert done.code == 2 and "README.md cannot be renewed" in done.err and not done.requests(*UPLOADS)


def with_yaml(text: str, yaml: str) -> str:
    """Return a card with other YAML at its top."""
    return "\n".join(["---", f"{yaml}---", text.split("---\n", 2)[2]])


@pytest.mark.parametrize(
    "yaml",
    [
        '"license": mit\nconfigs:\n- config_name: x\n"my key": 1\n',  # what stands behind configs is not ours
        "license: mit\nconfigs: []\né.1: a\n2: b\n",
        "? configs\n: - config_name: x\n? license\n: mit\n",
        "notes: |+\n  a\n\nconfigs:\n# mine\nlicense: mit\n",
        'notes: "a\nconfigs: b"\nlicense: mit\n',
        "number: .nan\nlist: &x [*x]\nconfigs: {\n}\n",
    ],
)
def test_a_renewed_card_keeps_every_key_of_its_yaml(built: Path, yaml: str) -> None:
    ours = Card.of((built / "README.md").read_text())
    card = Card.of(with_yaml((built / "README.md").read_text(), yaml))
    renewed = Card.of(card.renewed(ours))
    assert repr(sorted(renewed.values.items(), key=repr)) == repr(
        sorted({**card.values, **{key: ours.values[key] for key in OURS}}.items(), key=repr)
    )
    assert renewed.person == card.person != ours.person


@pytest.mark.parametrize(
    ("yaml", "why"),
    [
        ("{license: mit}\n", "cannot be renewed without touching other keys"),
        ("  license: mit\n  language: en\n", "without touching"),
        ("license: mit\n...\n", "without touching"),
        ("configs: &all\n- a: 1\nmine: *all\n", "without touching"),
        ("mine: &all []\nconfigs: *all\n", "without touching"),
        ("configs:\n- a: 1\n# mine\n- b: 1\n", "without touching"),
        ("foo: [a\n", "cannot be read: line 3, expected ',' or ']'"),
        ("license: mit\nfoo:\tbar\n", "cannot be read: line 3, found character"),
        ("a: !!bool x\n", "cannot be read"),
        ("null\n", "is no mapping"),
    ],
)
def test_yaml_that_cannot_be_merged_is_refused(built: Path, yaml: str, why: str) -> None:
    with pytest.raises(UnmarkedError) as refused:
        Card.of(with_yaml((built / "README.md").read_text(), yaml))
    assert why in str(refused.value) and "YAML" in (refused.value.next_step or "")


@pytest.mark.parametrize("yaml", ["{license: mit}\n", "foo: [a\n"])
def test_build_and_push_leave_a_card_alone_whose_yaml_cannot_be_merged(data: Path, tmp_path: Path, yaml: str) -> None:
    text = with_yaml((data / "README.md").read_text(), yaml)
    (data / "README.md").write_text(text)
    before = contents(data)
    for words in (
        ["build", "--task", "add", "--max", 2, "--num", 2, "--out", data],
        ["push", data, "--to", tmp_path / "there"],
    ):
        code, output = call(*words)
        assert code == 2 and "YAML" in output.partition("next:")[2] and "<!--" not in output
        assert contents(data) == before and not (tmp_path / "there").exists()


def test_a_key_behind_ours_at_the_target_stays(data: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    push(data, there)
    edit(there, ("\n---\n", '\n"my key": 1\n---\n'))
    assert push(data, there) == [] and '"my key": 1\n' in (there / "README.md").read_text()


def push(folder: Path, there: Path) -> list[str]:
    """Push to another folder, and return what changed there."""
    code, output = call("push", folder, "--to", there, "--json")
    assert code == 0, output
    changes: list[str] = json.loads(output[output.index("{") :])["changed"]
    return changes


def test_the_same_holds_for_other_places(data: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    push(data, there)
    edit(there, LICENCE)
    assert push(data, there) == [] and "license: mit" in (there / "README.md").read_text()
    edit(data, NOTES)
    before = contents(there)
    for words in ([], ["--dry-run"]):
        code, output = call("push", data, "--to", there, *words)
        assert code == 2 and "changed there" in output and contents(there) == before


def test_a_line_that_was_pushed_may_be_changed_again(data: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    edit(data, NOTES)
    push(data, there)
    edit(data, ("on a Tuesday", "on a Friday"))
    assert push(data, there) == ["README.md", "manifest.json"]
    text = (there / "README.md").read_text()
    assert "on a Friday" in text and "Tuesday" not in text


def test_a_dataset_with_the_record_is_read_like_any_other(data: Path, tmp_path: Path) -> None:
    there, next_one = tmp_path / "there", tmp_path / "next"
    edit(data, NOTES)
    push(data, there)
    mine, theirs = (json.loads((one / "manifest.json").read_bytes()) for one in (data, there))
    assert {**mine, "card": theirs["card"]} == theirs != mine
    for words in (["verify", there, "--workers", 1], ["info", there, "--json"]):
        code, output = call(*words)
        assert code == 0, output
    assert (
        push(there, next_one) == [] and push(there, next_one) == [] and NOTES[1] in (next_one / "README.md").read_text()
    )
    edit(there, LICENCE)
    assert push(there, next_one) == ["README.md", "manifest.json"]
    make_folder(there, views=["one_step"])  # the same build into it finds everything there
    assert call("verify", there, "--workers", 1)[0] == 0 and "license: mit" in (there / "README.md").read_text()
    assert push(there, next_one) == []
    (there / "manifest.json").write_bytes(json_bytes({**theirs, "card": "../x"}))
    code, output = call("verify", there)
    assert code == 2 and "manifest.json cannot be understood" in output and "$.card" in output


def test_a_conflict_between_two_datasets_is_solved_as_the_message_says(data: Path, tmp_path: Path) -> None:
    there, other = tmp_path / "there", make_folder(tmp_path / "other", views=["one_step"], seed=7)
    push(other, there)
    edit(there, LICENCE)
    edit(data, NOTES)
    code, output = call("push", data, "--to", there)
    assert code == 2 and "build the folder again, which renews our part of it, and push" in output
    shutil.copy(there / "README.md", data / "README.md")
    make_folder(data, views=["one_step"])
    assert call("verify", data, "--workers", 1)[0] == 0
    push(data, there)
    edit(data, NOTES)
    push(data, there)
    text = (there / "README.md").read_text()
    assert "license: mit" in text and NOTES[1] in text and open_folder(data).manifest()["identity"] in text
    assert call("verify", there, "--workers", 1)[0] == 0


@pytest.mark.parametrize("taken", [True, False])
def test_who_has_the_newer_card_where_both_wrote(built: Path, taken: bool) -> None:
    first = (built / "README.md").read_text()
    more, removed = changed(first, NOTES), changed(first, ("\n## Licence and citation\n", ""))
    both = changed(more, LICENCE)
    cards = {text: Card.of(text) for text in (first, more, removed, both)}

    def last(mine: str, theirs: str) -> Card | None:
        return newer(cards[mine], cards[theirs], cards[first], "0" * 16 if taken else None)

    assert last(first, both) is cards[both]  # nobody wrote here
    assert last(more, removed) is None  # what was removed there must not come back silently
    with_licence = changed(more, ("on a Tuesday.", "on a Tuesday.\n\nAnd on a Friday."))
    cards[with_licence] = Card.of(with_licence)
    assert last(with_licence, more) is last(more, with_licence) is None
    assert last(more, both) is None  # a line here is gone there


def test_a_push_that_was_stopped_at_its_end_still_knows_who_wrote(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    edit(data, NOTES)
    push(data, there)
    edit(data, ("on a Tuesday", "on a Friday"))
    with monkeypatch.context() as patch:
        patch.setattr(_Push, "upload", interrupt)
        assert call("push", data, "--to", there)[0] == 130
    assert not (there / "manifest.json").exists() and "Friday" not in (there / "README.md").read_text()
    push(data, there)
    text = (there / "README.md").read_text()
    assert text.count("caef-data: begin") == text.count("# Arithmetic executed") == 1 and "Friday" in text
    assert not (there / ".caef").exists() and call("verify", there, "--workers", 1)[0] == 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
