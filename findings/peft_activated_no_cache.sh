#!/usr/bin/env bash
# PEFT 0.21.2: an activated LoRA answers otherwise without a cache, and in chunks as a plain LoRA does, in silence.
#
# Behaviour: an adapter with alora_invocation_tokens works on these tokens and all behind them. generate looks for them
# once, in the prompt, and keeps how far they stand from its end. Each pass then counts so far back from the end of what
# it is given. With a cache that is one token, so it is right. With use_cache=False it is the whole text, and the place
# where the adapter begins moves on by a token a step. With prefill_chunk_size it is a part of the prompt: the adapter
# works on parts that stand before the invocation tokens. Here it works on all of them, as a plain LoRA does.
# Expected (guess before the run): all four ways give one answer, as they do for a plain LoRA. Beam search is refused
# with a message.
# Way round: a cache, and the prompt in one pass.
#
# Output seen with peft 0.21.2, transformers 5.23.0, torch 2.13.0; a loop over forward passes gives the right answer:
#     plain LoRA      cache: same, no cache: same, lookup: same, chunks: same
#     activated LoRA  cache: same, no cache: other, lookup: same, chunks: other
#     activated LoRA in chunks = plain LoRA of the same weights: True
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

INVOCATION = [7, 8]
WAYS = {
    "cache": {},
    "no cache": {"use_cache": False},
    "lookup": {"prompt_lookup_num_tokens": 3},
    "chunks": {"prefill_chunk_size": 4},
}
sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
ends = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
prompt = torch.tensor([[12, 31, 9, 25, 17, 38, *INVOCATION, 21, 14, 33, 10]])


def answers(invocation):
    generator = torch.Generator().manual_seed(3)
    settings = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "up_proj"])
    settings.alora_invocation_tokens = invocation
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**sizes, **ends)), settings).eval()
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    text = prompt
    for _ in range(12):
        logits = model(input_ids=text, attention_mask=torch.ones_like(text)).logits
        text = torch.cat([text, logits[:, -1:].argmax(-1)], 1)
    found = {"loop": text.tolist()}
    for way, options in WAYS.items():
        given = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
        found[way] = model.generate(**given, max_new_tokens=12, do_sample=False, **options).tolist()
    return found


with warnings.catch_warnings(record=True) as seen, torch.no_grad():
    warnings.simplefilter("always", UserWarning)
    plain, activated = answers(None), answers(INVOCATION)
for name, found in (("plain LoRA", plain), ("activated LoRA", activated)):
    print(f"{name:<15}", ", ".join(f"{way}: {'same' if found[way] == found['loop'] else 'other'}" for way in WAYS))
print("activated LoRA in chunks = plain LoRA of the same weights:", activated["chunks"] == plain["cache"])
print("warnings:", len([warning for warning in seen if "alora" in str(warning.message).lower()]))
PYTHON
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py 2> errors) || { cat errors; exit 1; }
echo "$found"
wanted='plain LoRA      cache: same, no cache: same, lookup: same, chunks: same
activated LoRA  cache: same, no cache: other, lookup: same, chunks: other
activated LoRA in chunks = plain LoRA of the same weights: True
warnings: 0'
[ "$found" = "$wanted" ] || { echo "another output than the one described" >&2; exit 1; }
