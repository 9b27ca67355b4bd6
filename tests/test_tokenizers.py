"""Which tokenizer each adapter is asked with: its own where its folder brings one, else the base model's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import polars as pl
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import caef_data
from caef_data.cli import app
from caef_data.errors import UserError
from caef_data.eval.backends.tokens import check_spelling, differences, load_tokenizer, load_tokenizers
from caef_data.eval.calls import BASE, Request
from caef_data.tests.checkpoints import CHARACTERS, VOCABULARY, write_checkpoint, write_json, write_tokenizer
from caef_data.tests.small_model import learn, make_model, make_tokenizer, save

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
        "1 words have other numbers or none, such as '34='",
        "other tokens for 1 of 2 texts tried, such as '12+34='",
    ]
    assert len(told["other"]) == 3


def test_a_template_is_tried_on_tokenizers_that_are_asked(tmp_path: Path) -> None:
    """An adapter with a chat template of its own was refused where the base model's tokenizer had none."""
    for name in ("base", "own", "bare"):
        tokenizer = make_tokenizer()
        if name == "own":
            answered = "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
            tokenizer.chat_template = f"{{% for m in messages %}}{{{{ m['content'] }}}}{answered}{{% endfor %}}"
        tokenizer.save_pretrained(tmp_path / name)
    base, own, bare = (tmp_path / name for name in ("base", "own", "bare"))
    assert load_tokenizers(base, {"own": own}, "chat")["own"].template.whole
    for adapters, where in (
        ({}, base),
        ({"own": own, BASE: None}, base),
        ({"own": own, "none": None}, base),
        ({"own": own, "bare": bare}, bare),
    ):
        with pytest.raises(UserError, match=f"where: +the chat template of the tokenizer {where}\n"):
            load_tokenizers(base, adapters, "chat")


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
        check_spelling(load_tokenizer(tmp_path), [Request("ADD, q0", text) for text in texts])

    try_it(VOCABULARY, "ADD, q1,  [HEAD1]|1|2 \n", " |1", "qH", "")
    with pytest.raises(UserError, match=r"gives .* back for '\|1', which follows 'q1 '"):
        try_it([word for word in VOCABULARY if word != "|"], "q1 |1")
    with pytest.raises(UserError, match="gives .* back for 'qH'"):
        try_it([word for word in VOCABULARY if word != "qH"], "qH")
    with pytest.raises(UserError, match="takes a part of '1<eos>2' for the end of the text"):
        try_it(VOCABULARY, "1<eos>2")
    assert set(CHARACTERS) < set(VOCABULARY)


def spaced(*, strip: bool = False, byte_level: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single characters that puts a space before a text, as Llama 2's does or RoBERTa's."""
    words = ["<pad>", "</s>", "<s>", "\u2581", "\n", *map(chr, range(33, 127))]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    if byte_level:
        words = ["<pad>", "</s>", "<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
    if strip:  # as converters write it
        parts = decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
        tokenizer.decoder = decoders.Sequence([*parts])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", pad_token="<pad>")


@pytest.mark.parametrize("kind", [{}, {"strip": True}, {"byte_level": True}], ids=str)
def test_a_model_whose_tokenizer_puts_a_space_before_texts_is_judged(tmp_path: Path, kind: dict[str, bool]) -> None:
    """It was refused: its answers were tried as texts of their own, not as they follow a prompt."""
    caef_data.build(task="add", min=1, max=1, num=1, out=tmp_path / "data", workers=1)
    tokenizer = spaced(**kind)
    rows = pl.read_parquet(tmp_path / "data" / "add-one_step" / "test-*.parquet").select("prompt", "completion")
    model = make_model(len(tokenizer), positions=512)
    spelled = [caef_data.tokenize_row(tokenizer, *row) for row in rows.head(2).iter_rows()]
    learn(model, [(prompt, answer[:-1]) for prompt, answer in spelled], 150)
    save(tmp_path / "model", model, tokenizer)
    asked = {"task": "add", "mode": "one_step", "device": "cpu", "dtype": "float32", "data": tmp_path / "data"}
    for strategy in ("verify", "generate"):
        out = tmp_path / strategy
        told = caef_data.evaluate(model=tmp_path / "model", out=out, strategy=strategy, **asked)
        assert [(row["n"], row["correct"]) for row in told["accuracy"]] == [(3, 2)]
        calls = pl.read_parquet(out / "calls" / "**" / "*.parquet")
        wrong = calls.filter(~pl.col("correct"))["text"].item()
        ids = tokenizer(rows["prompt"][2], return_tensors="pt")["input_ids"]
        given = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=200, pad_token_id=0)[0]
        texts = tokenizer.batch_decode([given, given[: ids.shape[1]]], skip_special_tokens=True)
        assert wrong and texts[0].removeprefix(texts[1]).startswith(wrong)


def test_a_tokenizer_that_changes_texts(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    changed = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    changed.normalizer = normalizers.Replace("  ", " ")
    changed.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"gives '\[HEAD1\]' back for ' \[HEAD1\]', which follows 'q1, '"):
        check_spelling(load_tokenizer(tmp_path), [Request("12", "q1, " + " [HEAD1]")])


def test_a_tokenizer_without_an_end(tmp_path: Path) -> None:

    write_tokenizer(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    with pytest.raises(UserError, match="no end-of-text token"):
        load_tokenizer(tmp_path)


def behind(*after: Any) -> dict[str, Any]:
    special = {"<unk>": {"id": "<unk>", "ids": [1], "tokens": ["<unk>"]}}
    one = [{"Sequence": {"id": "A", "type_id": 0}}, *after]
    return {"type": "TemplateProcessing", "single": one, "pair": [*one, *one], "special_tokens": special}


def changed(file: str = "tokenizer.json", **settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_json(folder / file, {**json.loads((folder / file).read_text()), **settings})

    return change


ODD = {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}
FEW = {"type": "WordLevel", "vocab": {"<eos>": 0, "x": 1}, "unk_token": "<unk>"}
BPE = {"type": "BPE", "vocab": {word: number for number, word in enumerate(VOCABULARY)}, "merges": [], "dropout": 0.5}
# Damages and what is said of them. Rust's panics are no Exceptions, and are written to standard error, too.
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pattern that is none": (changed(normalizer=ODD), "cannot be loaded: 'Oniguruma error"),
    "a panic at loading": (
        changed(normalizer={"type": "Precompiled", "precompiled_charsmap": ""}),
        "cannot be loaded: 'Precompiled",
    ),
    "a panic at work": (changed(pre_tokenizer={"type": "FixedLength", "length": 0}), "fails: 'chunk size must be"),
    "no word for what it does not know": (changed(model=FEW, added_tokens=[]), "fails: 'WordLevel error: Missing"),
    "a length that is none": (changed("tokenizer_config.json", model_max_length="x"), "fails: "),
    "a token behind each text": (
        changed(post_processor=behind({"SpecialToken": {"id": "<unk>", "type_id": 0}})),
        "does not end a text at its end: it makes 'ADD, q0<unk>' of 'ADD, q0'",
    ),
    "another text each time": (changed(model=BPE), "otherwise each time: its dropout is 0.5"),
    "no text": (lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff"), "cannot be loaded: "),
}


def test_the_end_behind_each_text_is_left_away(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    plain = load_tokenizer(tmp_path).prompts(["12"])
    special = {"<eos>": {"id": "<eos>", "ids": [0], "tokens": ["<eos>"]}}
    after = behind({"SpecialToken": {"id": "<eos>", "type_id": 0}})
    changed(post_processor={**after, "special_tokens": special})(tmp_path)
    tokens = load_tokenizer(tmp_path)
    assert tokens.tokenizer("12")["input_ids"][-1] == tokens.end
    assert tokens.prompts(["12"]) == plain and tokens.end not in plain[0]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_tokenizer_gives_one_message(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    write_tokenizer(tmp_path)
    damage, said = DAMAGES[name]
    damage(tmp_path)
    with pytest.raises(UserError) as raised:
        load_tokenizer(tmp_path)
    assert raised.value.what.startswith("the tokenizer ") and said in raised.value.what
    assert raised.value.where == str(tmp_path) and raised.value.next_step and "\n" not in raised.value.what
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--task", "add", "--mode", "one_step", "--adapters", "ckpt", "--data", "SMOKE"],
        ["tokens", "SMOKE", "--tokenizer", "ckpt/base"],
        ["export", "SMOKE", "--format", "alpaca", "--tokenizer", "ckpt/base"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_refuses_a_tokenizer_that_panics(
    smoke: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "ckpt")
    DAMAGES["a panic at work"][0](tmp_path / "ckpt/base")
    with pytest.raises(UserError, match="the tokenizer fails: 'chunk size must be non-zero'"):
        CliRunner().invoke(app, [str(smoke) if word == "SMOKE" else word for word in words], catch_exceptions=False)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_text_that_only_some_rows_have_makes_it_fail(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, ["<eos>", *CHARACTERS])
    tokens = load_tokenizer(tmp_path)
    for work in (lambda: tokens.encode(["\x00"]), lambda: tokens.prompts(["\x00"]), lambda: tokens.decode([["x"]])):
        with pytest.raises(UserError, match="the tokenizer fails: "):
            work()
