#!/usr/bin/env bash
# PEFT 0.21.2: adapters that are named by numbers are saved without most of their weights, in silence.
#
# Behaviour: three adapters "0", "1" and "2", as a loop names them, stand in one model of three layers. save_pretrained
# writes a folder for each without a warning, but a file holds the tensors of one layer: which belong to an adapter is
# asked of the whole name of a tensor, and a layer's number is a part of it. Loading such a folder warns of missing keys
# and gives the other layers new weights. The adapters of the model itself are whole. One adapter alone is saved whole.
# Expected (guess before the run): each file holds all tensors of its adapter.
# Way round: names that are no part of the model's own names, "run0", "run1"; count the tensors of what was saved.
#
# Output seen with peft 0.21.2, transformers 5.23.0, torch 2.13.0, safetensors 0.8.0:
#     0     2 of 6 tensors: layers 0
#     1     2 of 6 tensors: layers 1
#     2     2 of 6 tensors: layers 2
#     run0  6 of 6 tensors: layers 0 1 2
#     run1  6 of 6 tensors: layers 0 1 2
#     run2  6 of 6 tensors: layers 0 1 2
#     warnings: 0
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet peft==0.21.2 transformers==5.23.0 torch==2.13.0 safetensors==0.8.0
cd "$folder"
cat > run.py <<'PYTHON'
import warnings

from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

sizes = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
warned = 0
for names in (("0", "1", "2"), ("run0", "run1", "run2")):
    settings = {name: LoraConfig(target_modules=["q_proj"]) for name in names}
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**sizes)), settings[names[0]], adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, settings[name])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model.save_pretrained("adapters")
    warned += len(seen)
    for name in names:
        whole = sum(f".{name}.weight" in tensor for tensor, _ in model.named_parameters() if "lora_" in tensor)
        with safe_open(f"adapters/{name}/adapter_model.safetensors", "np") as file:
            tensors = list(file.keys())
        layers = sorted({tensor.partition("layers.")[2].partition(".")[0] for tensor in tensors})
        print(f"{name:<5} {len(tensors)} of {whole} tensors: layers {' '.join(layers)}")
print("warnings:", warned)
PYTHON
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py 2> errors) || { cat errors; exit 1; }
echo "$found"
wanted='0     2 of 6 tensors: layers 0
1     2 of 6 tensors: layers 1
2     2 of 6 tensors: layers 2
run0  6 of 6 tensors: layers 0 1 2
run1  6 of 6 tensors: layers 0 1 2
run2  6 of 6 tensors: layers 0 1 2
warnings: 0'
[ "$found" = "$wanted" ] || { echo "another output than the one described" >&2; exit 1; }
