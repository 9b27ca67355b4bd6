"""Writes small checkpoints in the layout that an evaluation reads, without torch: random Llama, LoRA adapters."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

HIDDEN, INNER, LAYERS, HEADS, HEAD_DIM, RANK = 64, 96, 2, 2, 32, 4  # vLLM on a CPU knows no heads below 32
CHARACTERS = "\n !#%*+,-./:<=>?0123456789[]_|ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["<eos>", "<unk>", "|1|2", "qH", *CHARACTERS]  # two that another spelling exists of
END = 0
TARGETS = ("q_proj", "v_proj", "down_proj")
ATTENTION = {name: (HEADS * HEAD_DIM, HIDDEN) for name in ("q_proj", "k_proj", "v_proj")}
SHAPES = {  # of a layer's weights, (out, in)
    **{f"self_attn.{name}": shape for name, shape in ATTENTION.items()},
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_tokenizer(folder: Path, vocabulary: Iterable[str] = VOCABULARY) -> None:
    """Write a tokenizer with a token for each character, and two longer ones."""
    words = list(vocabulary)
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\|1\|2|qH|[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<eos>", "<unk>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {**settings, "clean_up_tokenization_spaces": False})


def write_base(folder: Path, seed: int = 0, positions: int = 512) -> Path:
    """Write a random Llama; return its folder."""
    rng = np.random.default_rng(seed)
    size = len(VOCABULARY)

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    weights = {"model.embed_tokens.weight": draw(size, HIDDEN), "lm_head.weight": draw(size, HIDDEN)}
    weights["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        weights |= {f"{at}.{name}.weight": draw(*shape) for name, shape in SHAPES.items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        weights |= {f"{at}.{name}.weight": np.ones(HIDDEN, np.float32) for name in norms}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": size,
        "max_position_embeddings": positions,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": END,
        "torch_dtype": "float32",
    }
    write_json(folder / "config.json", config)
    write_tokenizer(folder)
    return folder


def lora_config(base: str = "../../base", **changed: Any) -> dict[str, Any]:
    """Return what peft writes beside an adapter, as far as it matters."""
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base}
    settings |= {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": list(TARGETS), "auto_mapping": None}
    return {**settings, "bias": "none", "inference_mode": True, **changed}


def lora_weights(seed: int = 0, rank: int = RANK) -> dict[str, np.ndarray]:
    """Return random weights of an adapter, by peft's names."""
    rng = np.random.default_rng(seed)
    weights = {}
    for layer in range(LAYERS):
        for name, (rows, columns) in SHAPES.items():
            if name.rpartition(".")[2] in TARGETS:
                at = f"base_model.model.model.layers.{layer}.{name}"
                weights[f"{at}.lora_A.weight"] = rng.standard_normal((rank, columns)).astype(np.float32) * 0.05
                weights[f"{at}.lora_B.weight"] = rng.standard_normal((rows, rank)).astype(np.float32) * 0.05
    return weights


def write_adapter(folder: Path, seed: int = 0, **changed: Any) -> Path:
    """Write a random adapter; ``changed`` are settings of its config. Return its folder."""
    write_json(folder / "adapter_config.json", lora_config(**changed))
    save_file(lora_weights(seed), folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


def write_checkpoint(folder: Path, adapters: Iterable[str] = ("executors/add", "aligners/add")) -> Path:
    """Write ``base/`` and adapters, each different; return the folder."""
    write_base(folder / "base")
    for seed, name in enumerate(adapters, 1):
        write_adapter(folder / name, seed)
    return folder
