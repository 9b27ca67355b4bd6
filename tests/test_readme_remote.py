"""What README and docs say about the Hub and stores works as it stands, against servers on this machine."""

import re
import shlex
from pathlib import Path

import pytest

from caef_data.tests.commands import call
from caef_data.tests.pushing import Side
from caef_data.tests.s3_server import S3Server

ROOT = Path(__file__).resolve().parents[1]
PAGES = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/push.md", "docs/stores.md"))


def blocks(mark: str) -> list[tuple[str, str]]:
    """Return language and text of the blocks behind a mark."""
    return re.findall(rf"^<!-- {mark} -->\n```(\w+)\n(.*?)^```$", PAGES, re.MULTILINE | re.DOTALL)


def load(code: str) -> int:
    """Run the README's lines in the client's process; return the number of rows that they load."""
    import datasets

    datasets.config.USE_PARQUET_EXPORT = False  # it would look for a server of the Hub's own that is not here
    found: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), found)
    return len(found["rows"])  # type: ignore[arg-type]


def test_push_and_load_as_the_readme_says(smoke: Path, tmp_path: Path) -> None:
    import json

    rows = json.loads((smoke / "manifest.json").read_text())["configs"]["sub-one_step"]["train"]["rows"]
    with Side(tmp_path, xet=False) as side:
        ran = 0
        for language, text in blocks("hub"):
            if language == "python":
                assert side.client.call(load, text) == rows
                continue
            for line in text.splitlines():
                program, command, *words = shlex.split(line)
                assert (program, command) == ("caef-data", "push")
                done = side.run(*(str(smoke) if word == "smoke" else word for word in words))
                assert done.code == 0, done.err
                ran += 1
        assert ran == 2
        side.check()


def test_build_and_push_to_a_store_as_the_readme_says(
    smoke: Path, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "smoke").symlink_to(smoke)
    monkeypatch.chdir(tmp_path)
    ((_, text),) = blocks("s3")
    for line in text.splitlines():
        program, *words = shlex.split(line)
        code, said = call(*words)
        assert (program, code) == ("caef-data", 0), said
    assert s3.objects("smoke/").keys() == s3.objects("copy/").keys() > {"manifest.json"}
