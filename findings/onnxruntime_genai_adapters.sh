#!/usr/bin/env bash
# onnxruntime-genai 0.18.0: built with an adapter, a model lacks its DoRA, its biases or its embeddings, in silence.
#
# Behaviour: the model builder takes a LoRA adapter with adapter_path, and reads rank, scale and patterns of it rightly.
# Of an adapter with use_dora it leaves out the magnitudes, of one with lora_bias the biases, of one with a LoRA of
# embed_tokens that of the embeddings. What comes out is the model with the rest of the adapter. The builder ends
# without an error, and does not speak of what it left out.
# Expected (guess before the run): the logits that PEFT gives, or an error.
# Way round: merge_and_unload in PEFT, save the model, and build that without an adapter.
#
# Output seen with peft 0.21.2, transformers 5.23.0, torch 2.13.0; a tiny Llama in float32 on a CPU:
#     plain                 as PEFT: True   as PEFT without it: True
#     use_rslora            as PEFT: True   as PEFT without it: False
#     alpha_pattern         as PEFT: True   as PEFT without it: False
#     use_dora              as PEFT: False  as PEFT without it: True
#     lora_bias             as PEFT: False  as PEFT without it: True
#     LoRA of embed_tokens  as PEFT: False  as PEFT without it: True
#     use_dora, merged      as PEFT: True
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx-ir==1.1.0 onnx==1.23.2 \
    peft==0.21.2 transformers==5.23.0 torch==2.13.0 tokenizers==0.23.3
cd "$folder"
cat > run.py <<'PYTHON'
import subprocess
import sys

import numpy as np
import onnxruntime_genai as og
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PLAIN = {"target_modules": ["q_proj", "v_proj"]}
KINDS = {
    "plain": {},
    "use_rslora": {"use_rslora": True},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 64}},
    "use_dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
    "LoRA of embed_tokens": {"target_modules": ["q_proj", "v_proj", "embed_tokens"]},
}
WORDS = ["<pad>", "<s>", "</s>", *map(str, range(97))]
sizes = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
sizes["num_attention_heads"] = 4
ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<pad>"}
ids = torch.randint(3, 100, (1, 20), generator=torch.Generator().manual_seed(1))


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, **ends, initializer_range=0.25))


def with_adapter(kind):
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **{**PLAIN, **KINDS[kind]})
    return get_peft_model(base(), settings).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=ids).logits[0, -1].numpy()


def logits_of_builder(folder, *options):
    build = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", folder, "-o", "onnx", "-c", "cache"]
    subprocess.run([*build, "-p", "fp32", "-e", "cpu", *options], check=True, capture_output=True)
    model = og.Model("onnx")
    generator = og.Generator(model, og.GeneratorParams(model))
    generator.append_tokens(ids[0].numpy().astype(np.int32))
    return np.asarray(generator.get_logits()).reshape(-1)[-sizes["vocab_size"] :]


base().save_pretrained("model")
for folder in ("model", "merged"):
    PreTrainedTokenizerFast(tokenizer_object=words, **marks).save_pretrained(folder)
for kind in KINDS:
    model, plain = with_adapter(kind), with_adapter("plain")
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if "lora_A" in name or "lora_B" in name or "lora_embedding" in name:
            weight.data = torch.randn_like(weight) * 0.3
    plain.load_state_dict(model.state_dict(), strict=False)
    model.save_pretrained("adapter")
    built = logits_of_builder("model", "--extra_options", "adapter_path=adapter")
    same, without = (np.allclose(built, logits(other), atol=1e-3) for other in (model, plain))
    print(f"{kind:<21} as PEFT: {same!s:<6} as PEFT without it: {without}")
    if kind == "use_dora":
        dora, wanted = model, logits(model)
dora.merge_and_unload().save_pretrained("merged")
print("use_dora, merged      as PEFT:", np.allclose(logits_of_builder("merged"), wanted, atol=1e-3))
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
plain                 as PEFT: True   as PEFT without it: True
use_rslora            as PEFT: True   as PEFT without it: False
alpha_pattern         as PEFT: True   as PEFT without it: False
use_dora              as PEFT: False  as PEFT without it: True
lora_bias             as PEFT: False  as PEFT without it: True
LoRA of embed_tokens  as PEFT: False  as PEFT without it: True
use_dora, merged      as PEFT: True
TEXT
diff expected.txt seen.txt
cat seen.txt
