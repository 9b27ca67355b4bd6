#!/usr/bin/env bash
# transformers 5.23.0: a sliding window counts columns, so padding behind a cached prefix changes the answer, in silence.
#
# Behaviour: one prefix is computed once and kept in a DynamicCache; the rows of a batch follow it, padded on their left,
# with an attention_mask that hides the padding and position_ids that leave it out. Full attention gives the logits of the
# row without padding. A model with a sliding window (Mistral) gives others: its mask counts the columns of the cache, the
# hidden ones too, so the row sees that many tokens of the prefix less than its window holds. No warning, eager and sdpa.
# Expected (guess before the run): the window counts what position_ids say, and the logits are the same.
# Way round: rows of one batch have one length, or the padding stands in front of the prefix.
#
# Output seen with transformers 5.23.0, torch 2.13.0:
#     window None eager same
#     window None sdpa same
#     window 8 eager other
#     window 8 sdpa other
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
from transformers import DynamicCache, MistralConfig, MistralForCausalLM

torch.manual_seed(0)
shape = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
}
prefix, row, padding = torch.arange(1, 7)[None], torch.arange(11, 16)[None], 4


@torch.no_grad()
def logits(model, padding):
    """Logits of the row's last token after a cached prefix, with padding between the two that the mask hides."""
    cache = DynamicCache(config=model.config)
    model(prefix, past_key_values=cache)
    tokens = torch.cat([torch.zeros(1, padding, dtype=torch.long), row], 1)
    mask = torch.cat([torch.ones_like(prefix), torch.zeros(1, padding, dtype=torch.long), torch.ones_like(row)], 1)
    positions = (mask.cumsum(1) - 1)[:, prefix.shape[1]:]
    out = model(tokens, attention_mask=mask, position_ids=positions, past_key_values=cache)
    return out.logits[0, -1]


for window in (None, 8):
    for attention in ("eager", "sdpa"):
        config = MistralConfig(**shape, sliding_window=window, attn_implementation=attention)
        model = MistralForCausalLM(config).eval()
        difference = (logits(model, padding) - logits(model, 0)).abs().max().item()
        print("window", window, attention, "same" if difference < 1e-5 else "other", flush=True)
PYTHON
"$folder/venv/bin/python" run.py > seen.txt
cat > expected.txt <<'TEXT'
window None eager same
window None sdpa same
window 8 eager other
window 8 sdpa other
TEXT
diff expected.txt seen.txt
cat seen.txt
