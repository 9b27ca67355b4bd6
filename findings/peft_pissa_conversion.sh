#!/usr/bin/env bash
# PEFT 0.21.2: a PiSSA or OLoRA adapter saved as LoRA lacks its DoRA magnitudes or its embeddings.
#
# Behaviour: save_pretrained(path_initial_model_for_weight_conversion=...) writes a trained PiSSA or OLoRA adapter as a
# LoRA for the untouched base model. Of the tensors it keeps those named lora_A and lora_B. The magnitudes of use_dora,
# and all of a LoRA of embed_tokens, are not in the file; the config still asks for them. Saving ends without an error,
# where modules_to_save is refused. Loading makes new ones, warns of missing keys, and gives other logits.
# Expected (guess before the run): the logits of the trained model, or an error when it is saved.
# Way round: merge_and_unload, and save the model.
#
# Output seen with transformers 5.23.0, torch 2.13.0; the converted adapter on the base model against the trained one:
#     pissa  q_proj        same   loading warns: False  left out: nothing
#     pissa  use_rslora    same   loading warns: False  left out: nothing
#     pissa  use_dora      other  loading warns: True   left out: lora_magnitude_vector
#     pissa  embed_tokens  other  loading warns: True   left out: base_layer, lora_embedding_A, lora_embedding_B
#     olora  q_proj        same   loading warns: False  left out: nothing
#     olora  use_rslora    same   loading warns: False  left out: nothing
#     olora  use_dora      other  loading warns: True   left out: lora_magnitude_vector
#     olora  embed_tokens  other  loading warns: True   left out: base_layer, lora_embedding_A, lora_embedding_B
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
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

KINDS = {
    "q_proj": {},
    "use_rslora": {"use_rslora": True},
    "use_dora": {"use_dora": True},
    "embed_tokens": {"target_modules": ["q_proj", "embed_tokens"]},
}
sizes = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
ids = torch.randint(3, 100, (2, 12), generator=torch.Generator().manual_seed(1))


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, initializer_range=0.2)).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=ids).logits


def names(path):
    with safe_open(path, "pt") as file:
        return {name.removesuffix(".weight").rpartition(".")[2] for name in file.keys()}  # noqa: SIM118


def trained(init, kind):
    settings = {"target_modules": ["q_proj"], **KINDS[kind]}
    model = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=init, **settings)).eval()
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained("untrained")
    model.peft_config["default"].init_lora_weights = init
    torch.manual_seed(3)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += torch.randn_like(weight) * 0.05
    return model


for init in ("pissa", "olora"):
    for kind in KINDS:
        model = trained(init, kind)
        model.save_pretrained("converted", path_initial_model_for_weight_conversion="untrained")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            loaded = PeftModel.from_pretrained(base(), "converted").eval()
        same = "same" if torch.allclose(logits(loaded), logits(model), atol=1e-2) else "other"
        lost = sorted(names("untrained/adapter_model.safetensors") - names("converted/adapter_model.safetensors"))
        warned = any("missing adapter keys" in str(warning.message) for warning in seen)
        print(f"{init:<6} {kind:<13} {same:<6} loading warns: {warned!s:<6} left out: {', '.join(lost) or 'nothing'}")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
pissa  q_proj        same   loading warns: False  left out: nothing
pissa  use_rslora    same   loading warns: False  left out: nothing
pissa  use_dora      other  loading warns: True   left out: lora_magnitude_vector
pissa  embed_tokens  other  loading warns: True   left out: base_layer, lora_embedding_A, lora_embedding_B
olora  q_proj        same   loading warns: False  left out: nothing
olora  use_rslora    same   loading warns: False  left out: nothing
olora  use_dora      other  loading warns: True   left out: lora_magnitude_vector
olora  embed_tokens  other  loading warns: True   left out: base_layer, lora_embedding_A, lora_embedding_B
TEXT
diff expected.txt seen.txt
cat seen.txt
