#!/usr/bin/env bash
# PEFT 0.21.2: the sum of two adapters that stand on different layers has the first one's layers only, in silence.
#
# Behaviour: one adapter was trained on layer 0, another on layers 1 and 2 (layers_to_transform). add_weighted_adapter
# joins their target_modules, but copies layers_to_transform and exclude_modules from the first adapter of the list. So
# the sum stands on layer 0, and is the first adapter alone. In the other order it is the other adapter alone. The same
# layers told by a pattern in target_modules are all there.
# Expected (guess before the run): the sum stands on each layer of each adapter; or a message. `cat` is called precise.
# Way round: target_modules as a pattern that names the layers, or set_adapter(["low", "high"]) on `model.base_model`.
#
# Output seen with peft 0.21.2, transformers 5.23.0, torch 2.13.0; the last column is the largest difference to the sum:
#     layers_to_transform  low + high   low on 0, high on 1 2, sum on 0        off by 1.0
#     layers_to_transform  high + low   low on 0, high on 1 2, sum on 1 2      off by 1.0
#     exclude_modules      low + high   low on 0, high on 1 2, sum on 0        off by 1.0
#     target_modules       low + high   low on 0, high on 1 2, sum on 0 1 2    off by 0.0
#     warnings: 0
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet peft==0.21.2 transformers==5.23.0 torch==2.13.0
cd "$folder"
cat > run.py <<'PYTHON'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

sizes = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
KINDS = {
    "layers_to_transform": {
        "low": {"target_modules": ["q_proj"], "layers_to_transform": [0]},
        "high": {"target_modules": ["q_proj"], "layers_to_transform": [1, 2]},
    },
    "exclude_modules": {
        "low": {"target_modules": ["q_proj"], "exclude_modules": r".*\.[12]\..*"},
        "high": {"target_modules": ["q_proj"], "exclude_modules": r".*\.0\..*"},
    },
    "target_modules": {
        "low": {"target_modules": r".*\.0\..*q_proj"},
        "high": {"target_modules": r".*\.[12]\..*q_proj"},
    },
}


def show(kind, names):
    settings = {name: LoraConfig(**where, init_lora_weights=False) for name, where in KINDS[kind].items()}
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**sizes)), settings["low"], adapter_name="low")
    model.add_adapter("high", settings["high"])
    model.add_weighted_adapter(names, [1.0, 1.0], "sum", combination_type="cat")
    layers = [layer.self_attn.q_proj for layer in model.base_model.model.model.layers]
    held, off = {"low": "", "high": "", "sum": ""}, 0.0
    for n, layer in enumerate(layers):
        there = [name for name in held if name in getattr(layer, "lora_A", {})]
        deltas = {name: layer.get_delta_weight(name) for name in there}
        wanted = sum(deltas[name] for name in there if name != "sum")
        off = max(off, float((deltas.get("sum", 0) - wanted).abs().max() / wanted.abs().max()))
        for name in there:
            held[name] += f" {n}"
    text = ", ".join(f"{name} on{layers or ' none'}" for name, layers in held.items())
    print(f"{kind:<20} {' + '.join(names):<12} {text:<38} off by {off:.1f}")


torch.manual_seed(0)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always", UserWarning)
    show("layers_to_transform", ["low", "high"])
    show("layers_to_transform", ["high", "low"])
    show("exclude_modules", ["low", "high"])
    show("target_modules", ["low", "high"])
print("warnings:", sum("adapter" in str(warning.message) for warning in seen))
PYTHON
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py 2> errors) || { cat errors; exit 1; }
echo "$found"
wanted='layers_to_transform  low + high   low on 0, high on 1 2, sum on 0        off by 1.0
layers_to_transform  high + low   low on 0, high on 1 2, sum on 1 2      off by 1.0
exclude_modules      low + high   low on 0, high on 1 2, sum on 0        off by 1.0
target_modules       low + high   low on 0, high on 1 2, sum on 0 1 2    off by 0.0
warnings: 0'
[ "$found" = "$wanted" ] || { echo "another output than the one described" >&2; exit 1; }
