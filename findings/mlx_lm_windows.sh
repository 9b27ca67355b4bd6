#!/usr/bin/env bash
# mlx-lm 0.32.2: Mistral, Phi-3, Starcoder2, Qwen3 and Gemma 2 see past their sliding window, in silence.
#
# Behaviour: a configuration with sliding_window lets a token see that many tokens and no more, in all layers or in
# every second one. mlx-lm reads no window for these models, and all layers see the whole text. Up to the window's
# length the logits are right, so that a short try shows nothing; Phi-3 mini and the first Mistral have windows of 2,047
# and 4,096 tokens. For Gemma 3 and Olmo 3 the window counts.
# Expected (guess before the run): the logits that transformers gives, or an error.
# Way round: none found; texts shorter than the window.
#
# Output seen with mlx 0.32.4 on a CPU, transformers 5.24.0, torch 2.13.0; tiny models with a window of 8 tokens:
#     mistral     as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
#     phi3        as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
#     starcoder2  as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
#     qwen3       as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
#     gemma2      as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
#     gemma3_text as transformers, 8 tokens: yes  100 tokens: yes  100 tokens, as without a window: no
#     olmo3       as transformers, 8 tokens: yes  100 tokens: yes  100 tokens, as without a window: no
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

import mlx.core as mx
import numpy as np
import torch
from mlx_lm.utils import load_model
from transformers import AutoConfig, AutoModelForCausalLM

WINDOW = 8
KINDS = {
    "mistral": {},
    "phi3": {},
    "starcoder2": {},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 1, "head_dim": 16},
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 6},
    "olmo3": {"num_hidden_layers": 4},
}
sizes = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "pad_token_id": 0}
sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1}
ids = torch.randint(3, 100, (1, 100), generator=torch.Generator().manual_seed(1))
folder = Path("model")


def model_of(kind, window):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**sizes, **KINDS[kind]}, sliding_window=window)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def logits(model, length):
    with torch.no_grad():
        return model(ids[:, :length]).logits[0].numpy()


def logits_of_mlx(length):
    settings = json.loads((folder / "config.json").read_text())
    rope = settings["rope_parameters"]
    older_form = {"rope_theta": rope.get("full_attention", rope)["rope_theta"], "rope_scaling": None}
    (folder / "config.json").write_text(json.dumps({**settings, **older_form}))
    return np.array(load_model(folder)[0](mx.array(ids[:, :length].numpy())))[0]


def same(one, two):
    return "yes" if np.abs(one - two).max() < 1e-3 * np.abs(two).max() else "no"


for kind in KINDS:
    model, without = model_of(kind, WINDOW), model_of(kind, 10_000)
    model.save_pretrained(folder)
    short, long = (logits_of_mlx(length) for length in (WINDOW, 100))
    texts = f"{WINDOW} tokens: {same(short, logits(model, WINDOW)):<4} 100 tokens: {same(long, logits(model, 100)):<4}"
    print(f"{kind:<11} as transformers, {texts} 100 tokens, as without a window: {same(long, logits(without, 100))}")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
mistral     as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
phi3        as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
starcoder2  as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
qwen3       as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
gemma2      as transformers, 8 tokens: yes  100 tokens: no   100 tokens, as without a window: yes
gemma3_text as transformers, 8 tokens: yes  100 tokens: yes  100 tokens, as without a window: no
olmo3       as transformers, 8 tokens: yes  100 tokens: yes  100 tokens, as without a window: no
TEXT
diff expected.txt seen.txt
cat seen.txt
