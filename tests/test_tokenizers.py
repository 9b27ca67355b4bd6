"""Which tokenizer each adapter is asked with: its own where its folder brings one, else the base model's."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from caef_data.errors import UserError
from caef_data.eval.backends.tokens import differences, load_tokenizers
from caef_data.eval.calls import BASE
from caef_data.tests.checkpoints import write_tokenizer
from caef_data.tests.small_model import make_tokenizer

TEXTS = ["12+34=", "ab\n"]


def test_an_adapter_is_asked_with_the_tokenizer_that_it_brings(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path / "base")
    for name in ("same", "ended", "grown"):
        tokenizer = make_tokenizer()
        if name == "ended":
            tokenizer.eos_token = "<begin>"
        if name == "grown":
            tokenizer.add_tokens(["34="])
        tokenizer.save_pretrained(tmp_path / name)
    write_tokenizer(tmp_path / "other")
    (tmp_path / "none").mkdir()
    folders = {name: tmp_path / name for name in ("none", "same", "ended", "grown", "other")}
    tokens = load_tokenizers(tmp_path / "base", folders)
    assert tokens.keys() == {BASE, *folders}
    assert tokens["none"] is tokens["same"] is tokens[BASE]
    assert (tokens["ended"].end, tokens[BASE].end) == (2, 1)
    told = {name: differences(tokens[name], tokens[BASE], TEXTS) for name in tokens}
    assert told[BASE] == told["none"] == told["same"] == []
    assert told["ended"] == ["an answer ends with '<begin>' instead of '<end>'"]
    assert told["grown"] == ["1 tokens more, such as '34='", "other tokens for 1 of 2 texts tried, such as '12+34='"]
    assert len(told["other"]) == 5


def test_half_a_tokenizer_is_refused(tmp_path: Path) -> None:
    for name in ("base", "half"):
        make_tokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "half" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="the tokenizer cannot be loaded") as raised:
        load_tokenizers(tmp_path / "base", {"executors/add": tmp_path / "half"})
    assert str(tmp_path / "half") in str(raised.value)
