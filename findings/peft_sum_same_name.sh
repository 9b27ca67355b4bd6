#!/usr/bin/env bash
# PEFT 0.21.2: a sum of adapters under a name that is taken keeps the old weights, without a word.
#
# Behaviour: a loop tries several weights, and calls add_weighted_adapter with one name each time. The first call makes
# the adapter. The later ones look whether the name is there, and return: no error, no warning, nothing is written. All
# weights then seem to be equally good. add_adapter refuses a name that is taken.
# Expected (guess before the run): the new weights count, or an error as that of add_adapter.
# Way round: delete_adapter before each call, or a new name for each.
#
# Output seen with peft 0.21.2, transformers 5.23.0, torch 2.13.0:
#     weights 1.0 1.0  sum 1.0 times the first sum
#     weights 0.5 0.5  sum 1.0 times the first sum, after delete_adapter 0.5
#     weights 0.1 0.1  sum 1.0 times the first sum, after delete_adapter 0.1
#     add_adapter: ValueError
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

sizes = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
settings = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
torch.manual_seed(0)
model = get_peft_model(LlamaForCausalLM(LlamaConfig(**sizes)), settings, adapter_name="left")
model.add_adapter("right", settings)
layer = model.base_model.model.model.layers[0].self_attn.q_proj


def add(weight):
    model.add_weighted_adapter(["left", "right"], [weight, weight], "sum", combination_type="cat")
    return layer.get_delta_weight("sum").norm().item()


with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always", UserWarning)
    first = add(1.0)
    print(f"weights 1.0 1.0  sum {first / first:.1f} times the first sum")
    for weight in (0.5, 0.1):
        again = add(weight)
        model.delete_adapter("sum")
        anew = add(weight)
        print(f"weights {weight} {weight}  sum {again / first:.1f} times the first sum", end=", ")
        print(f"after delete_adapter {anew / first:.1f}")
        model.delete_adapter("sum")
        add(1.0)
try:
    model.add_adapter("right", settings)
except ValueError as error:
    print(f"add_adapter: {type(error).__name__}")
print("warnings:", sum("adapter" in str(warning.message) for warning in seen))
PYTHON
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py 2> errors) || { cat errors; exit 1; }
echo "$found"
wanted='weights 1.0 1.0  sum 1.0 times the first sum
weights 0.5 0.5  sum 1.0 times the first sum, after delete_adapter 0.5
weights 0.1 0.1  sum 1.0 times the first sum, after delete_adapter 0.1
add_adapter: ValueError
warnings: 0'
[ "$found" = "$wanted" ] || { echo "another output than the one described" >&2; exit 1; }
