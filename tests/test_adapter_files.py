"""One adapter's files: what is damaged, pickled, or names code to run is refused before anything is loaded."""

import json
from pathlib import Path

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from safetensors.numpy import save_file

from caef_data.errors import UserError
from caef_data.eval.checkpoint import read_adapter
from caef_data.tests.checkpoints import write_adapter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "add")


def refused(folder: Path, words: str) -> str:
    with pytest.raises(UserError, match=words) as raised:
        read_adapter(folder)
    assert "PosixPath" not in str(raised.value) and str(folder) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"r": 1}}', b'{"a": ' * 100_000])
def test_a_configuration_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "adapter_config.json").write_bytes(content)
    refused(folder, "adapter_config.json cannot be read")


def test_damaged_weights(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    header = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()
    for content in (
        b"",
        b"PK",
        whole[:1000],
        whole[:-4],
        whole + b"0000",
        b"\xff" * 50,
        len(header).to_bytes(8, "little"),
    ):
        path.write_bytes(content)
        refused(folder, "damaged, or no safetensors file|cannot be read")
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"0000")
    refused(folder, "damaged, or no safetensors file")
    save_file({}, path)
    refused(folder, "the adapter holds no weight")
