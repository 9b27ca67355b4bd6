#!/usr/bin/env bash
# transformers 5.23.0: batch_select_indices of a cache leaves the states of Falcon-H1's layers as they are.
#
# Behaviour: two rows of one length are read into a DynamicCache, and batch_select_indices takes them out of it in another
# order. Of a layer that has attention and a state (LinearAttentionAndFullAttentionLayer) only keys and values are
# selected: the method is inherited from the attention's half. The convolution and recurrent states stay in the old order,
# so each row goes on with the other row's state: other logits, no warning. reorder_cache, which beam search uses, moves
# both. (With fewer rows than before, the sizes differ and the next call raises an error.)
# Expected (guess before the run): both methods give each row the logits that it has alone.
# Way round: reorder_cache; or rows are decoded alone.
#
# Output seen with transformers 5.23.0, torch 2.13.0:
#     Llama batch_select_indices same
#     Llama reorder_cache same
#     FalconH1 batch_select_indices other
#     FalconH1 reorder_cache same
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > run.py <<'PYTHON'
import torch
from transformers import AutoModelForCausalLM, DynamicCache, FalconH1Config, LlamaConfig

torch.manual_seed(0)
shape = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}
states = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8}
rows, order = torch.tensor([[5, 9, 2, 7], [11, 3, 8, 6]]), torch.tensor([1, 0])
next_token = torch.tensor([[20], [20]])


@torch.no_grad()
def last(model, cache, ids):
    return model(ids, past_key_values=cache, use_cache=True).logits[:, -1]


for config in (LlamaConfig(**shape), FalconH1Config(**shape, **states)):
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    alone = []
    for row in rows[order]:
        cache = DynamicCache(config=model.config)
        last(model, cache, row[None])
        alone.append(last(model, cache, next_token[:1]))
    for method in ("batch_select_indices", "reorder_cache"):
        cache = DynamicCache(config=model.config)
        last(model, cache, rows)
        getattr(cache, method)(order)
        found = last(model, cache, next_token)
        name = type(config).__name__.removesuffix("Config")
        print(name, method, "same" if (found - torch.cat(alone)).abs().max() < 1e-4 else "other", flush=True)
PYTHON
"$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
Llama batch_select_indices same
Llama reorder_cache same
FalconH1 batch_select_indices other
FalconH1 reorder_cache same
TEXT
diff expected.txt seen.txt
cat seen.txt
