"""Which tokenizer each adapter is asked with: its own where its folder brings one, else the base model's."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tokenizers import Tokenizer, normalizers

from caef_data.errors import UserError
from caef_data.eval.backends.tokens import differences, load_tokenizer, load_tokenizers
from caef_data.eval.calls import BASE, Call
from caef_data.eval.spelling import check_spelling
from caef_data.tests.checkpoints import CHARACTERS, VOCABULARY, write_json, write_tokenizer
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
    assert told["grown"] == [
        "it has 1 of its own, such as '34='",
        "other tokens for 1 of 2 texts tried, such as '12+34='",
    ]
    assert len(told["other"]) == 5


def test_half_a_tokenizer_is_refused(tmp_path: Path) -> None:
    for name in ("base", "half"):
        make_tokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "half" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="the tokenizer cannot be loaded") as raised:
        load_tokenizers(tmp_path / "base", {"executors/add": tmp_path / "half"})
    assert str(tmp_path / "half") in str(raised.value)


def test_spelling(tmp_path: Path) -> None:

    def try_it(vocabulary: list[str], *texts: str) -> None:
        write_tokenizer(tmp_path, vocabulary)
        check_spelling(load_tokenizer(tmp_path), [Call("", "ADD, q0", text) for text in texts])

    try_it(VOCABULARY, "ADD, q1,  [HEAD1]|1|2 \n", " |1", "qH", "")
    with pytest.raises(UserError, match=r"does not know '\|' in 'q1 \|1'"):
        try_it([word for word in VOCABULARY if word != "|"], "q1 |1")
    with pytest.raises(UserError, match="does not know a part in 'qH'"):
        try_it([word for word in VOCABULARY if word != "qH"], "qH")
    with pytest.raises(UserError, match="takes a part of '1<eos>2' for the end of the text"):
        try_it(VOCABULARY, "1<eos>2")
    assert set(CHARACTERS) < set(VOCABULARY)


def test_a_tokenizer_that_changes_texts(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    changed = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    changed.normalizer = normalizers.Replace("  ", " ")
    changed.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"gives '\[HEAD1\]' back for ' \[HEAD1\]', which follows 'q1, '"):
        check_spelling(load_tokenizer(tmp_path), [Call("", "12", "q1, " + " [HEAD1]")])


def test_a_tokenizer_without_an_end(tmp_path: Path) -> None:

    write_tokenizer(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    with pytest.raises(UserError, match="no end-of-text token"):
        load_tokenizer(tmp_path)
