#!/usr/bin/env bash
# mlx-lm 0.32.2: in a batch, Mamba and Jamba answer a shorter prompt otherwise than alone.
#
# Behaviour: batch_generate pads the shorter prompts on their left. Attention and Mamba 2 have a mask for that. The
# layers of Mamba, and so those of Jamba, have none: the padding runs through convolution and state as if it were text,
# and all but the longest prompt get other tokens than generate_step gives them. Prompts of one length are answered
# rightly. No warning is given.
# Expected (guess before the run): the tokens of each prompt alone, or an error, as for models that cannot be batched.
# Way round: prompts of one length in a batch, or one prompt at a time.
#
# Output seen with mlx 0.32.4 on a CPU, transformers 5.24.0, torch 2.13.0; greedy tokens in a batch and alone:
#     mamba   of one length: same   3 tokens: other, 25 tokens: same, 11 tokens: other
#     jamba   of one length: same   3 tokens: other, 25 tokens: same, 11 tokens: other
#     mamba2  of one length: same   3 tokens: same, 25 tokens: same, 11 tokens: same
#     llama   of one length: same   3 tokens: same, 25 tokens: same, 11 tokens: same
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlx-lm==0.32.2 "mlx[cpu]==0.32.4" transformers==5.24.0 torch==2.13.0
cd "$folder"
cat > run.py <<'PYTHON'
import json
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import torch
from mlx_lm.generate import batch_generate, generate_step
from mlx_lm.utils import load_model
from transformers import AutoConfig, AutoModelForCausalLM

KINDS = {
    "mamba": {"state_size": 8},
    "jamba": {"num_experts": 2, "num_experts_per_tok": 1, "attn_layer_period": 2, "attn_layer_offset": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 8, "n_groups": 1},
    "llama": {},
}
KINDS["jamba"] |= {"expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 8, "use_mamba_kernels": False}
sizes = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "pad_token_id": 0}
sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.25}
draw = torch.Generator().manual_seed(5)
prompts = [torch.randint(3, 100, (length,), generator=draw).tolist() for length in (3, 25, 11)]
tokenizer = SimpleNamespace(eos_token_ids=[], decode=str)


def alone(model, prompt):
    return [int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=20)]


def together(model, prompts):
    return batch_generate(model, tokenizer, prompts, max_tokens=20, return_token_ids=True).token_ids


for kind, more in KINDS.items():
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **sizes, **more)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained("model")
    model, _ = load_model(Path("model"))
    wanted = [alone(model, prompt) for prompt in prompts]
    unequal = together(model, prompts)
    equal = together(model, [prompts[1], prompts[1][::-1]])
    results = ["same" if one == two else "other" for one, two in zip(unequal, wanted, strict=True)]
    pair = [alone(model, prompts[1]), alone(model, prompts[1][::-1])]
    lengths = ", ".join(f"{len(p)} tokens: {result}" for p, result in zip(prompts, results, strict=True))
    print(f"{kind:<7} of one length: {'same' if equal == pair else 'other'}   {lengths}")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
mamba   of one length: same   3 tokens: other, 25 tokens: same, 11 tokens: other
jamba   of one length: same   3 tokens: other, 25 tokens: same, 11 tokens: other
mamba2  of one length: same   3 tokens: same, 25 tokens: same, 11 tokens: same
llama   of one length: same   3 tokens: same, 25 tokens: same, 11 tokens: same
TEXT
diff expected.txt seen.txt
cat seen.txt
