"""Tiny random models of many architectures, with an adapter each that changes them much."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from caef_data.tests.checkpoints import write_json

WORDS = ["<eos>", "ab", "a", "b", *" \n=|,012"]  # so few that models say the end at times; ab has two spellings
PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
INNER = {**PLAIN, "intermediate_size": 48}
GROUPED = {**INNER, "num_key_value_heads": 2}
ORIGINAL = 40  # positions before some kinds of rope change their factors: some rows cross this border
ROPE = {"rope_theta": 10_000.0}
LONG = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 3.0, 4.0], **ROPE}

# Of models that end answers at some prompts, but not at all of them; 0 where none is named. Tests begin with it.
SEEDS = {"gemma2": 4, "gemma3": 3, "gpt2": 1, "gpt_neox": 4, "cohere": 2, "bloom": 23, "olmo": 2, "mixtral": 2}
SEEDS |= {"mamba": 1, "qwen2": 2, "phi3": 1, "phi3, longrope": 1}

TARGETS = {"Mamba": ["in_proj", "x_proj"], "FalconH1": ["in_proj", "q_proj", "v_proj", "down_proj"]}  # which peft takes

# Name: configuration class, its settings. Windows are of 16 tokens: most rows are longer.
TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GROUPED),
    "llama, llama3 rope": (
        "Llama",
        {
            **GROUPED,
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": ORIGINAL,
                **ROPE,
            },
        },
    ),
    "llama, linear rope": ("Llama", {**GROUPED, "rope_parameters": {"rope_type": "linear", "factor": 4.0, **ROPE}}),
    "llama, dynamic rope": (
        "Llama",
        {
            **GROUPED,
            "max_position_embeddings": ORIGINAL,
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, **ROPE},
        },
    ),
    "llama, yarn rope": (
        "Llama",
        {
            **GROUPED,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": ORIGINAL,
                **ROPE,
            },
        },
    ),
    "llama, longrope": (
        "Llama",
        {
            **GROUPED,
            "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": ORIGINAL, **LONG},
        },
    ),
    "mistral, sliding window": ("Mistral", {**GROUPED, "sliding_window": 16}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 8}),
    "gemma2": (
        "Gemma2",
        {**GROUPED, "head_dim": 8, "sliding_window": 16, "attn_logit_softcapping": 2.0, "tie_word_embeddings": False},
    ),
    "gemma3": (
        "Gemma3Text",
        {**GROUPED, "head_dim": 8, "sliding_window": 16, "sliding_window_pattern": 2, "tie_word_embeddings": False},
    ),
    "phi3": ("Phi3", GROUPED),
    "phi3, longrope": (
        "Phi3",
        {
            **GROUPED,
            "original_max_position_embeddings": ORIGINAL,
            "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": ORIGINAL, **LONG},
        },
    ),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt_neox": ("GPTNeoX", INNER),
    "falcon, alibi": ("Falcon", {**PLAIN, "alibi": True, "new_decoder_architecture": False}),
    "falcon, rotary": ("Falcon", {**PLAIN, "alibi": False, "multi_query": True}),
    "opt": ("OPT", {**PLAIN, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "mixtral": ("Mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "granite": ("Granite", {**GROUPED, "logits_scaling": 2.0, "residual_multiplier": 0.7}),
    "olmo": ("Olmo", INNER),
    "cohere": ("Cohere", {**GROUPED, "logit_scale": 0.5, "tie_word_embeddings": False}),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "tie_word_embeddings": False}),
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 4}),
    "lfm2, convolutions": ("Lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"], "block_multiple_of": 16}),
    "falcon_h1, attention and states": (
        "FalconH1",
        {
            **GROUPED,
            "mamba_d_ssm": 64,
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_d_state": 8,
            "mamba_chunk_size": 8,
        },
    ),
    "bert, not causal": ("Bert", INNER),
}


def write_model(folder: Path, name: str, seed: int) -> tuple[Path, Path]:
    """Write a random model of an architecture and an adapter for it; return their folders."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    kind, settings = TABLE[name]
    torch.manual_seed(seed)
    tokens = {"vocab_size": len(WORDS), "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**settings, **tokens)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.35)
    model.save_pretrained(folder / "base")
    write_tokenizer(folder / "base")
    targets = TARGETS.get(kind, "all-linear")
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    for place, weight in adapted.named_parameters():
        if "lora_B" in place:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(folder / "adapter")
    return folder / "base", folder / "adapter"


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of these words."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"ab|[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<eos>"}
    write_json(folder / "tokenizer_config.json", settings)


def make_prompts(number: int, seed: int = 0) -> list[str]:
    """Return prompts of 2 to 48 tokens."""
    chance = random.Random(seed)
    return ["".join(chance.choice(WORDS[2:]) for _ in range(chance.randint(1, 47))) + "=" for _ in range(number)]
