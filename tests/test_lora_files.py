"""Damaged, hostile and unfitting LoRA files, and tokenizers that cannot spell: each is refused, and says what it is."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from safetensors import deserialize
from safetensors.numpy import load_file, save, save_file

from caef_data.errors import UserError
from caef_data.eval.adapters import find_adapters
from caef_data.eval.calls import Call
from caef_data.eval.lora import WEIGHTS
from caef_data.eval.weights import MAX_HEADER, check_finite, read_header
from caef_data.tests.checkpoints import (
    CHARACTERS,
    HIDDEN,
    RANK,
    VOCABULARY,
    lora_config,
    lora_weights,
    write_adapter,
    write_checkpoint,
    write_json,
    write_tokenizer,
)

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
Weights = dict[str, np.ndarray]


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "ckpt", ("executors/add",))


def refused(ckpt: Path, words: str) -> str:
    with pytest.raises(UserError, match=words) as raised:
        find_adapters(ckpt, None)
    text = str(raised.value)
    assert text.isprintable() or "\n" in text and all(line.isprintable() for line in text.split("\n"))
    return text


# Configurations


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type of this adapter is 'IA3'"),
        ({"peft_type": None}, "peft_type"),
        ({"task_type": "SEQ_CLS"}, "task_type"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": 1}, "init_lora_weights"),
        ({"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}}, "auto_mapping .*\n.*\n.*never run"),
        ({"auto_map": {"AutoModel": "evil.Evil"}}, "auto_map"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron_config"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"r": 0}, "r of this adapter is '0'|r of this adapter is 0"),
        ({"r": True}, "r of this adapter"),
        ({"r": "8"}, "r of this adapter"),
        ({"r": 10**6}, "r of this adapter"),
        ({"r": 8}, "their rank is not 8"),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": None}, "target_modules"),
        ({"target_modules": [5]}, "target_modules"),
        ({"target_modules": ["q_proj"]}, "which its configuration does not name"),
        ({"target_modules": ["q_proj", "v_proj", "down_proj", "k_proj"]}, "holds nothing for 'k_proj'"),
        ({"target_modules": ".*q_proj"}, "which its configuration does not name"),
        ({"target_modules": "(q_proj"}, "no regular expression"),
        ({"modules_to_save": ["(.*)*Z"]}, "modules_to_save"),
        ({"exclude_modules": 3}, "exclude_modules"),
        ({"exclude_modules": [3]}, "exclude_modules"),
        ({"layers_pattern": 3}, "layers_pattern"),
        ({"layers_to_transform": "0"}, "layers_to_transform"),
        ({"layers_to_transform": list(range(5000))}, "layers_to_transform"),
        ({"alpha_pattern": {"q_proj": 10**400}}, "alpha_pattern"),
        ({"lora_alpha": -(10**400)}, "lora_alpha"),
        ({"rank_pattern": {"q_proj": 4.5}}, "rank_pattern"),
        ({"rank_pattern": {"q_proj": 8}}, "their rank is not 8"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern"),
        ({"modules_to_save": "lm_head"}, "modules_to_save"),
        ({"use_dora": True}, "holds A, B of"),
        ({"base": "a\0b"}, "base_model_name_or_path"),
        ({"base": 5}, "base_model_name_or_path"),
    ],
)
def test_a_configuration_that_is_refused(ckpt: Path, changed: dict[str, Any], words: str) -> None:
    write_adapter(ckpt / "executors/add", 1, **changed)
    refused(ckpt, words)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"5", b"\xff\xfe", b'{"r": 1, "r": 2}', b"[" * 100_000, b'{"r": ' + b"9" * 5000 + b"}"],
)
def test_a_configuration_that_is_none(ckpt: Path, content: bytes) -> None:
    (ckpt / "executors/add/adapter_config.json").write_bytes(content)
    assert "adapter_config.json" in refused(ckpt, "is not what it should be")


@pytest.mark.parametrize(
    "changed",
    [
        {"target_modules": r".*\.(q_proj|v_proj|down_proj)"},
        {"target_modules": "all-linear"},
        {"rank_pattern": {"self_attn.q_proj": RANK}, "alpha_pattern": {"q_proj": 1}},
        {"init_lora_weights": "gaussian", "task_type": None, "use_rslora": True},
        {"layers_to_transform": [0, 1], "fan_in_fan_out": False},
    ],
)
def test_what_a_plain_lora_may_say(ckpt: Path, changed: dict[str, Any]) -> None:
    write_adapter(ckpt / "executors/add", 1, **changed)
    assert find_adapters(ckpt, None).adapters["executors/add"].rank == RANK


# Weights that contradict the configuration, or the base model


def without(*parts: str) -> Callable[[Weights], Any]:
    return lambda weights: [weights.pop(name) for name in list(weights) if any(part in name for part in parts)]


def put(name: str, *shape: int, dtype: Any = np.float32) -> Callable[[Weights], Any]:
    return lambda weights: weights.update({name: np.zeros(shape, dtype)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(A), "holds B of"),
        (without("base_model"), "holds nothing for|holds no weight"),
        (without("layers.1.self_attn.v_proj"), "holds nothing for 1 of 6 modules: 'model.layers.1.self_attn.v_proj'"),
        (
            put(A, RANK, HIDDEN + 1),
            r"made for shape \(64, 65\) of 'model.layers.0.self_attn.q_proj', which has \(64, 64\)",
        ),
        (put(B, HIDDEN * 2, RANK), "made for shape"),
        (put(f"base_model.model.{'a' * 200}\n.lora_A.weight", RANK, HIDDEN), "belongs to no LoRA"),
        (put(A, RANK + 1, HIDDEN), "their rank is not 4"),
        (put(A, RANK * HIDDEN), "their rank is not 4"),
        (put(A, RANK, HIDDEN, 1), "their rank is not 4"),
        (put(A, RANK, HIDDEN, dtype=np.int8), "of format 'I8'"),
        (put("base_model.model.lm_head.weight", 88, HIDDEN), "belongs to no LoRA of its configuration"),
        (put("base_model.model.model.layers.0.self_attn.q_proj.bias", HIDDEN), "belongs to no LoRA"),
        (put("evil\x1b[31m", 1), "belongs to no LoRA"),
        (put("model.layers.0.self_attn.q_proj.lora_A.weight", RANK, HIDDEN), "belongs to no LoRA"),
    ],
)
def test_weights_that_do_not_fit(ckpt: Path, change: Callable[[Weights], Any], words: str) -> None:
    weights = lora_weights(1)
    change(weights)
    save_file(weights, ckpt / "executors/add" / WEIGHTS)
    refused(ckpt, words)


def test_a_turned_shape_is_told_as_the_base_has_it(ckpt: Path) -> None:
    """As Conv1D of GPT-2 keeps its weights: (in, out)."""
    write_adapter(ckpt / "executors/add", 1, fan_in_fan_out=True)
    refused(ckpt, r"made for shape \(96, 64\) of 'model.layers.0.mlp.down_proj', which has \(64, 96\)")


def test_an_adapter_of_a_larger_model(ckpt: Path) -> None:
    more = {name.replace("layers.1", "layers.2"): weight for name, weight in lora_weights(1).items()}
    save_file(lora_weights(1) | more, ckpt / "executors/add" / WEIGHTS)
    assert "--base-model" in refused(ckpt, "changes 'model.layers.2.*which the base model does not have")


def test_a_base_whose_files_leave_out_the_first_name(ckpt: Path) -> None:
    """As GPT-2 models are often kept: h.0..., not transformer.h.0..."""
    path = ckpt / "base/model.safetensors"
    save_file({name.removeprefix("model."): weight for name, weight in load_file(path).items()}, path)
    assert find_adapters(ckpt, None).adapters
    weights = {name: weight for name, weight in lora_weights(1).items() if "layers.1.self_attn.v_proj" not in name}
    save_file(weights, ckpt / "executors/add" / WEIGHTS)
    refused(ckpt, "holds nothing for 1 of 6 modules")


def test_whole_modules_and_magnitudes(ckpt: Path) -> None:
    """What peft calls modules_to_save and DoRA."""
    vocabulary = load_file(ckpt / "base/model.safetensors")["lm_head.weight"].shape
    weights = lora_weights(1)
    modules = {name.rpartition(".lora_A")[0]: None for name in weights if "lora_A" in name}
    weights |= {f"{one}.lora_magnitude_vector": np.ones(weights[f"{one}.lora_B.weight"].shape[0]) for one in modules}
    for shape, fits in ((vocabulary, True), ((3, 3), False)):
        save_file(weights | {"base_model.model.lm_head.weight": np.zeros(shape)}, ckpt / "executors/add" / WEIGHTS)
        config = lora_config(use_dora=True, modules_to_save=["lm_head"])
        write_json(ckpt / "executors/add/adapter_config.json", config)
        if fits:
            assert find_adapters(ckpt, None).adapters
        else:
            refused(ckpt, r"made for shape \(3, 3\) of 'lm_head'")


def test_embeddings(ckpt: Path) -> None:
    """A LoRA of the embedding lies the other way round."""
    rows = len(VOCABULARY)
    at = "base_model.model.model.embed_tokens"
    weights = lora_weights(1) | {
        f"{at}.lora_embedding_A": np.zeros((RANK, rows)),
        f"{at}.lora_embedding_B": np.zeros((HIDDEN, RANK)),
    }
    targets = [*lora_config()["target_modules"], "embed_tokens"]
    write_json(ckpt / "executors/add/adapter_config.json", lora_config(target_modules=targets))
    save_file(weights, ckpt / "executors/add" / WEIGHTS)
    assert find_adapters(ckpt, None).adapters
    weights[f"{at}.lora_embedding_A"] = np.zeros((RANK, rows + 1))
    save_file(weights, ckpt / "executors/add" / WEIGHTS)
    refused(ckpt, "made for shape")


def test_a_packed_base_has_shapes_of_its_own(ckpt: Path) -> None:
    path = ckpt / "base/config.json"
    write_json(path, {**json.loads(path.read_text()), "quantization_config": {"quant_method": "bitsandbytes"}})
    weights = lora_weights(1)
    weights[A] = np.zeros((RANK, 7), np.float32)
    save_file(weights, ckpt / "executors/add" / WEIGHTS)
    assert find_adapters(ckpt, None).base_model.shapes is None


# Numbers that are none


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_nan_and_infinity(ckpt: Path, bad: float, kind: Any) -> None:
    weights = {name: weight.astype(kind) for name, weight in lora_weights(1).items()}
    save_file(weights, ckpt / "executors/add" / WEIGHTS)
    assert find_adapters(ckpt, None).adapters
    weights[B].flat[-1] = bad
    save_file(weights, ckpt / "executors/add" / WEIGHTS)
    assert "q_proj.lora_B" in refused(ckpt, "holds NaN or infinity")


@pytest.mark.parametrize(
    ("bits", "fine"), [(0x7F80, False), (0xFFC0, False), (0x7F7F, True), (0x0001, True), (0xFF7F, True)]
)
def test_bfloat16(tmp_path: Path, bits: int, fine: bool) -> None:
    header = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<3H", 0x3F80, bits, 0))
    if fine:
        check_finite(path, read_header(path))
    else:
        with pytest.raises(UserError, match="NaN or infinity"):
            check_finite(path, read_header(path))


# Files that are damaged


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is cut short: 0 bytes"),
        (b"PK\x03\x04\x00\x00\x00\x00 a zip", "its header"),
        (file_of({}, length=2**63), "its header claims 9,223,372,036,854,775,808 bytes"),
        (file_of({}, length=MAX_HEADER + 1), "its header claims"),
        (file_of({}, length=1000), "it is cut short"),
        (file_of(b"\xff\xff"), "damaged"),
        (file_of([1]), "instead of names with values"),
        (file_of(b'{"a":{"a":1},"a":{"a":1}}'), "a name stands in it twice"),
        (file_of(b"[" * 50_000), "damaged"),
        (file_of({"x": 5}), "has no dtype, shape and data_offsets"),
        (file_of({"x": entry(dtype="F31")}, b"1234"), "unknown format 'F31'"),
        (file_of({"x": entry(dtype=["F32"])}, b"1234"), "unknown format"),
        (file_of({"x": entry(shape=[-1])}, b"1234"), "has the shape"),
        (file_of({"x": entry(shape=[True])}, b"1234"), "has the shape"),
        (file_of({"x": entry(shape=[2**62] * 1000)}, b"1234"), "has the shape"),
        (file_of({"x": entry(shape=[2**62] * 9)}, b"1234"), "do not fill"),
        (file_of({"x": entry(offsets=[0, 8])}, b"12345678"), "do not fill"),
        (file_of({"x": entry(offsets=[4, 0])}, b"1234"), "do not fill"),
        (file_of({"x": entry(offsets=[4, 8])}, b"12345678"), "leaves a gap"),
        (file_of({"x": entry(), "y": entry()}, b"1234"), "overlaps"),
        (file_of({"x": entry()}, b"123"), "it is cut short"),
        (file_of({"x": entry()}, b"12345"), "nothing is known of its last bytes"),
    ],
)
def test_a_damaged_file(ckpt: Path, content: bytes, words: str) -> None:
    (ckpt / "executors/add" / WEIGHTS).write_bytes(content)
    assert "copy or download it again" in refused(ckpt, words)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_file_that_is_cut_short(ckpt: Path, share: float) -> None:
    for path in (ckpt / "executors/add" / WEIGHTS, ckpt / "base/model.safetensors"):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        assert path.name in refused(ckpt, "is cut short")
        path.write_bytes(whole)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_what_is_let_through_can_be_loaded(tmp_path: Path, data: st.DataObject) -> None:
    """Damage is found, or safetensors' own reader does not mind it; it never is another error."""
    whole = bytearray(save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)}, {"format": "pt"}))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole)
    try:
        held = read_header(path)
        check_finite(path, held)
    except UserError:
        return
    assert {name: tensor.shape for name, tensor in held.items()} == {
        name: tuple(one["shape"]) for name, one in deserialize(bytes(whole))
    }


# Tokenizers


def test_spelling(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from caef_data.eval.backends.tokens import load_tokenizer
    from caef_data.eval.spelling import check_spelling

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
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, normalizers

    from caef_data.eval.backends.tokens import load_tokenizer
    from caef_data.eval.spelling import check_spelling

    write_tokenizer(tmp_path)
    changed = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    changed.normalizer = normalizers.Replace("  ", " ")
    changed.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"gives '\[HEAD1\]' back for ' \[HEAD1\]', which follows 'q1, '"):
        check_spelling(load_tokenizer(tmp_path), [Call("", "12", "q1, " + " [HEAD1]")])


def test_a_tokenizer_without_an_end(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from caef_data.eval.backends.tokens import load_tokenizer

    write_tokenizer(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    with pytest.raises(UserError, match="no end-of-text token"):
        load_tokenizer(tmp_path)
