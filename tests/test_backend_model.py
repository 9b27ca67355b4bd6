"""What the transformers backend loads, and what it refuses: tokenizers, base models, adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertLMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from caef_data.errors import UserError
from caef_data.eval.backends.device import find_device, find_dtype
from caef_data.eval.backends.load import load_adapter, out_of_memory
from caef_data.eval.backends.model import Model
from caef_data.eval.backends.tokens import Tokens, load_tokenizer
from caef_data.eval.calls import BASE
from caef_data.tests.small_model import make_model, make_tokenizer, save

TEXTS = st.text("ab12[] |\n,", max_size=12)


def metaspace(scheme: str, **special: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that writes spaces as SentencePiece does, and puts one before a text."""
    words = ["<pad>", "<end>", "<begin>", "\u2581", *"abq012[]|\n,ADD", "AD", "\u2581A", "12"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("A", "D"), ("1", "2")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", **special)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte level": make_tokenizer,
    "a space before every text": lambda: metaspace("always"),
    "a space before the first text": lambda: metaspace("first"),
    "no space before": lambda: metaspace("never"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_come_back_exactly(kind: str) -> None:
    tokens = Tokens(KINDS[kind]())

    @given(TEXTS)
    def check(answer: str) -> None:
        [row] = tokens.spell(["ADD, 12\n"], [answer])
        assert tokens.text(row.given, row.answer) == answer

    check()


def test_special_tokens_in_an_answer_are_shown() -> None:
    tokens = Tokens(make_tokenizer(bos_token="<begin>"))
    [ids] = tokens.encode(["a<begin> <pad>b"])
    assert {0, 2} <= set(ids)
    assert tokens.text([5], ids) == "a<begin> <pad>b"


@pytest.mark.parametrize(
    ("template", "start"),
    [("$A", []), ("<begin> $A", [2]), ("<begin> $A <end>", [2]), ("<begin> <begin> $A", [2, 2]), ("$A <end>", [])],
)
def test_only_what_the_tokenizer_puts_before_a_prompt_stands_there(template: str, start: list[int]) -> None:
    tokenizer = make_tokenizer(bos_token="<begin>")
    special = [("<begin>", 2), ("<end>", 1)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=special)
    tokens = Tokens(tokenizer)
    [plain] = tokens.encode(["12+9="])
    assert tokens.prompts(["12+9="]) == [start + plain]
    assert not {1, 2} & set(plain)
    if start:
        assert tokens.prompts([""]) == [start]
    else:
        with pytest.raises(UserError, match="has no token"):
            tokens.prompts(["a", ""])


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-text token"):
        Tokens(tokenizer)
    with pytest.raises(UserError, match="the tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tokenizer = make_tokenizer()
    return save(tmp_path / "base", make_model(len(tokenizer)), tokenizer)


def adapter(folder: Path, *, width: int = 64, seed: int = 0, **settings: Any) -> Path:
    config = LoraConfig(**{"r": 2, "target_modules": ["q_proj", "v_proj"], **settings})
    get_peft_model(make_model(300, width=width, seed=seed), config).save_pretrained(folder)
    return folder


def test_only_safetensors_are_read(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "pickled")
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="adapter_model.safetensors cannot be read"):
        Model(base, {"executors/add": folder}, device="cpu")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match="the base model cannot be loaded"):
        Model(base, {}, device="cpu")


def test_a_base_model_without_all_its_weights_is_refused(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights: 'model.layers.1.mlp.up_proj.weight'"):
        Model(base, {}, device="cpu")


def test_a_base_model_with_code_of_its_own_is_refused(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (base / "config.json").write_text(json.dumps(config))
    (base / "mine.py").write_text("raise SystemExit('code of the model was run')")
    with pytest.raises(UserError, match="the base model cannot be loaded"):
        Model(base, {}, device="cpu")


def test_a_known_model_is_loaded_without_the_code_beside_it(base: Path) -> None:
    """Many models on the Hub name code that the library has taken over since."""
    config = json.loads((base / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (base / "config.json").write_text(json.dumps(config))
    (base / "mine.py").write_text("raise SystemExit('code of the model was run')")
    assert type(Model(base, {}, device="cpu").net).__name__ == "LlamaForCausalLM"


def test_code_that_an_adapter_names_is_not_run(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('code of the adapter was run')")
    path = adapter(tmp_path / "add") / "adapter_config.json"
    mapping = {"base_model_class": "M", "parent_library": "evil"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_mapping": mapping}))
    assert Model(base, {"executors/add": path.parent}, device="cpu").trees


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_base_model_of_no_numbers_is_refused(base: Path, bad: float) -> None:
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = bad
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="the base model gives logits that are not finite"):
        Model(base, {}, device="cpu")


def test_numbers_that_a_format_cannot_hold_are_refused(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = 1e6
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="the base model gives logits that are not finite"):
        Model(base, {}, device="cpu", dtype="float16")


def test_models_that_do_not_continue_a_text_are_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    small = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    bert = BertConfig(**small, intermediate_size=32, is_decoder=False)
    save(tmp_path / "bert", BertLMHeadModel(bert), tokenizer)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(UserError, match=r"the base model looks ahead.*\(bert\)"):
            Model(tmp_path / "bert", {}, device="cpu", dtype=dtype)
    bert.is_decoder = True
    assert Model(save(tmp_path / "decoder", BertLMHeadModel(bert), tokenizer), {}, device="cpu")
    t5 = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    save(tmp_path / "t5", T5ForConditionalGeneration(t5), tokenizer)
    with pytest.raises(UserError, match=r"the base model is an encoder-decoder \(t5\)"):
        Model(tmp_path / "t5", {}, device="cpu")


LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 6}


@pytest.mark.parametrize(
    ("rope", "most"),
    [
        (None, 48),
        ({"rope_type": "linear", "factor": 4.0}, 192),
        ({"rope_type": "dynamic", "factor": 4.0}, 192),
        ({"rope_type": "yarn", "factor": 4.0}, 192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12}, 48),
        ({**LLAMA3, "factor": 8.0}, 48),
    ],
)
def test_how_long_a_row_may_be(tmp_path: Path, rope: dict[str, Any] | None, most: int) -> None:
    tokenizer = make_tokenizer()
    base = save(tmp_path, make_model(len(tokenizer), positions=48), tokenizer)
    config = json.loads((base / "config.json").read_text())
    if rope:
        config |= {"rope_parameters": {"rope_theta": 10_000.0, **rope}}
    (base / "config.json").write_text(json.dumps(config))
    assert Model(base, {}, device="cpu").max_positions == most


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"), False),
    ],
)
def test_how_torch_says_that_memory_ran_out(error: RuntimeError, is_one: bool) -> None:
    assert out_of_memory(error) == is_one


@pytest.mark.parametrize(("held", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_only_where_the_gpu_computes_it(monkeypatch: pytest.MonkeyPatch, held: bool, dtype: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or held)
    assert find_dtype("auto", torch.device("cuda")) == dtype


def test_a_gpu_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm shows each process its GPU alone, whatever its place on the machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert find_device("auto") == find_device("cuda") == torch.device("cuda:0")
    for name in ("cuda:3", "cuda:128"):
        with pytest.raises(UserError, match=f"no device '{name}': this machine has 1 GPU"):
            find_device(name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # torchrun: they would share it
    with pytest.raises(UserError, match="no device 'cuda:3'"):
        find_device("auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert find_device("auto") == torch.device("cuda:0")


def damaged(folder: Path) -> Path:
    path = adapter(folder) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def lacking(folder: Path) -> Path:
    weights = load_file(adapter(folder) / "adapter_model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def left_over(folder: Path) -> Path:
    path = adapter(folder) / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.other.lora_A.weight": torch.zeros(2, 2)}, path)
    return folder


def without_its_norm(folder: Path) -> Path:
    path = adapter(folder, modules_to_save=["norm"]) / "adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(path).items() if "norm" not in name}, path)
    return folder


def of_no_modules(folder: Path) -> Path:
    path = adapter(folder) / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "modules_to_save": True}))
    return folder


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "damaged": (damaged, "is damaged, or no safetensors file"),
    "lacking": (lacking, "does not fit the base model"),
    "left over": (left_over, "does not fit the base model"),
    "a whole module lacking": (without_its_norm, "cannot be loaded: .*it lacks .*norm"),
    "a setting that is none": (of_no_modules, "cannot be loaded: .*'bool' object is not iterable"),
    "of another shape": (
        lambda folder: adapter(folder, width=32),
        r"does not fit .*: .*lora_A.* has the shape \[\d+, 32\], here it is \[\d+, \d+\]",
    ),
    "of other modules": (lambda folder: adapter(folder, width=32, target_modules=["lm_head"]), "has the shape"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_adapters_that_do_not_fit_are_refused(base: Path, tmp_path: Path, kind: str) -> None:
    make, why = REFUSED[kind]
    good, bad = adapter(tmp_path / "good"), make(tmp_path / "bad")
    with pytest.raises(UserError, match=why) as raised:  # before anything is asked
        Model(base, {"good": good, "bad": bad}, device="cpu")
    assert str(bad) in str(raised.value)


def answers(model: Model) -> torch.Tensor:
    with torch.inference_mode():
        return model.logits(torch.arange(5)[None], torch.arange(5))


def test_adapters_that_find_no_memory_take_the_place_of_others(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("first", "second", "third")
    paths = {name: adapter(tmp_path / name, seed=seed, init_lora_weights=False) for seed, name in enumerate(names)}
    alone = {BASE: answers(Model(base, {}, device="cpu"))}
    for name in paths:
        fresh = Model(base, {name: paths[name]}, device="cpu")
        fresh.use(name)
        alone[name] = answers(fresh)
    assert not any(torch.equal(alone[one], alone[two]) for one, two in combinations(alone, 2))
    model, most = None, 2

    def load(net: Any, name: str, folder: Path) -> Any:
        if model is not None and len(model.trees) >= most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load_adapter(net, name, folder)

    monkeypatch.setattr("caef_data.eval.backends.model.load_adapter", load)
    model = Model(base, paths, device="cpu")
    for name in ["first", "second", "third", BASE, "third", "first", BASE, "second"]:
        model.trees = dict(list(model.trees.items())[:2])
        model.use(name)
        assert torch.equal(answers(model), alone[name]), name
    most = 0
    with pytest.raises(UserError, match="memory ran out while the adapter third was loaded"):
        model.use("third")


def test_a_base_model_that_finds_no_memory(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("caef_data.eval.backends.load.AutoModelForCausalLM.from_pretrained", load)
    with pytest.raises(UserError, match="memory ran out while the base model was loaded"):
        Model(base, {}, device="cpu")


def test_unknown_number_formats_are_refused(base: Path) -> None:
    with pytest.raises(UserError, match="there is no dtype 'int4'"):
        Model(base, {}, dtype="int4", device="cpu")
