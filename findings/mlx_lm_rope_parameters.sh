#!/usr/bin/env bash
# mlx-lm 0.32.2: a model that transformers 5 saved loses its rope_theta and its rope scaling, in silence.
#
# Behaviour: transformers 5 writes all settings of rotary positions to `rope_parameters` in config.json. mlx-lm looks
# for rope_theta and rope_scaling beside the other settings, finds neither, and takes its own defaults: for Llama and
# Mistral a base of 10,000 and no scaling, for Qwen2 another base still. The weights load; the numbers are those of
# another model. Qwen3 reads both forms; Granite, which has no default, is refused. With the older form all are right.
# Expected (guess before the run): the logits that transformers gives, or an error as for Granite.
# Way round: write rope_theta and rope_scaling to config.json before mlx-lm reads it.
#
# Output seen with mlx 0.32.4 on a CPU, transformers 5.24.0, torch 2.13.0; "plain" is a base of 10,000 without scaling:
#     llama    rope_theta  as transformers: no, as plain: yes   older form as transformers: yes
#     llama    llama3      as transformers: no, as plain: yes   older form as transformers: yes
#     mistral  rope_theta  as transformers: no, as plain: yes   older form as transformers: yes
#     mistral  llama3      as transformers: no, as plain: yes   older form as transformers: yes
#     qwen2    rope_theta  as transformers: no, as plain: no    older form as transformers: yes
#     qwen2    llama3      as transformers: no, as plain: no    older form as transformers: yes
#     qwen3    rope_theta  as transformers: yes, as plain: no   older form as transformers: yes
#     qwen3    llama3      as transformers: yes, as plain: no   older form as transformers: yes
#     granite  rope_theta  TypeError, missing 'rope_theta'      older form as transformers: yes
#     granite  llama3      TypeError, missing 'rope_theta'      older form as transformers: yes
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

THETA = {"rope_type": "default", "rope_theta": 500_000.0}
LLAMA = {**THETA, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA["original_max_position_embeddings"] = 64
PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}
sizes = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2, "max_position_embeddings": 512}
ids = torch.randint(3, 100, (1, 100), generator=torch.Generator().manual_seed(1))
folder = Path("model")


def model_of(kind, rope):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **sizes, rope_parameters=dict(rope), pad_token_id=0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def logits(model):
    with torch.no_grad():
        return model(ids).logits[0].numpy()


def logits_of_mlx():
    try:
        model, _ = load_model(folder)
    except TypeError as error:
        return str(error).rpartition("argument: ")[2]
    return np.array(model(mx.array(ids.numpy())))[0]


def as_before():
    settings = json.loads((folder / "config.json").read_text())
    rope = settings.pop("rope_parameters")
    settings["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] != "default":
        settings["rope_scaling"] = rope
    (folder / "config.json").write_text(json.dumps(settings))


def same(one, two):
    return "no" if isinstance(one, str) or not np.allclose(one, two, atol=1e-2) else "yes"


for kind in ("llama", "mistral", "qwen2", "qwen3", "granite"):
    for name, rope in {"rope_theta": THETA, "llama3": LLAMA}.items():
        model = model_of(kind, rope)
        model.save_pretrained(folder)
        wanted, plain, seen = logits(model), logits(model_of(kind, PLAIN)), logits_of_mlx()
        as_before()
        before = same(logits_of_mlx(), wanted)
        result = f"as transformers: {same(seen, wanted)}, as plain: {same(seen, plain)}"
        if isinstance(seen, str):
            result = f"TypeError, missing {seen}"
        print(f"{kind:<8} {name:<11} {result:<36} older form as transformers: {before}")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
llama    rope_theta  as transformers: no, as plain: yes   older form as transformers: yes
llama    llama3      as transformers: no, as plain: yes   older form as transformers: yes
mistral  rope_theta  as transformers: no, as plain: yes   older form as transformers: yes
mistral  llama3      as transformers: no, as plain: yes   older form as transformers: yes
qwen2    rope_theta  as transformers: no, as plain: no    older form as transformers: yes
qwen2    llama3      as transformers: no, as plain: no    older form as transformers: yes
qwen3    rope_theta  as transformers: yes, as plain: no   older form as transformers: yes
qwen3    llama3      as transformers: yes, as plain: no   older form as transformers: yes
granite  rope_theta  TypeError, missing 'rope_theta'      older form as transformers: yes
granite  llama3      TypeError, missing 'rope_theta'      older form as transformers: yes
TEXT
diff expected.txt seen.txt
cat seen.txt
