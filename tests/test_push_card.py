"""What people write in README.md, in the folder or at the target of a push, survives; conflicts move nothing."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from caef_data.errors import UserError
from caef_data.pipelines.card import first_card, from_folder
from caef_data.pipelines.folder import open_folder
from caef_data.pipelines.push.console import push_with_progress
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
    remote.push(data)
    text = remote.edit(LICENCE, NOTES)
    tags = side.tags(remote.repo)
    done = side.push(data, "--repo", remote.repo, "--json")
    assert not done.requests(*UPLOADS, *WRITES)
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


def test_what_a_new_repository_says_stays(side: Side, data: Path) -> None:
    remote = Remote(side)
    side.hub.add_repo(remote.repo)
    side.hub.commit(remote.repo, {"README.md": b"---\nlicense: cc0-1.0\n---\n# Soon\n"})
    remote.push(data)
    assert remote.text.startswith("---\nlicense: cc0-1.0\n") and "# Soon\n" in remote.text
    assert "config_name: sub-one_step" in remote.text and remote.text.count("caef-data: begin") == 1
    assert remote.push(data)["changed"] == []


def test_a_card_of_0_1_0_is_replaced_unless_it_was_edited(side: Side, data: Path) -> None:
    remote, manifest = Remote(side), open_folder(OLD).manifest()
    side.hub.add_repo(remote.repo)
    first = first_card(manifest, open_folder(OLD), lambda *one: from_folder(*one, place=remote.repo))
    files = {path.relative_to(OLD).as_posix(): path.read_bytes() for path in OLD.rglob("*") if path.is_file()}
    side.hub.commit(remote.repo, {**files, "README.md": first.encode()})
    assert "README.md" in remote.push(data)["changed"] and "caef-data: begin" in remote.text
    side.hub.commit(remote.repo, {**files, "README.md": changed(first, NOTES).encode()})
    done = side.run(data, "--repo", remote.repo)
    assert done.code == 2 and "README.md was edited" in done.err and not done.requests(*UPLOADS)


def test_the_same_holds_for_other_places(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there"

    def push() -> list[str]:
        options = {"repo": None, "revision": "main", "private": False, "dry_run": False, "as_json": True}
        push_with_progress(str(data), to=str(there), **options)
        changes: list[str] = json.loads(capsys.readouterr().out)["changed"]
        return changes

    push()
    edit(there, LICENCE)
    assert push() == [] and "license: mit" in (there / "README.md").read_text()
    edit(data, NOTES)
    with pytest.raises(UserError, match="changed there"):
        push()
    assert NOTES[1] not in (there / "README.md").read_text()
