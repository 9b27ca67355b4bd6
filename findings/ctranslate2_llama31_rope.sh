#!/usr/bin/env bash
# CTranslate2 4.8.5: a converted Llama 3.1 has lost the scaling of its positions, in silence.
#
# Behaviour: the configuration of Llama 3.1 and 3.2 slows down the low frequencies of the rotary positions (rope_type
# "llama3"). The converter knows that type, takes it, and says nothing. The model that comes out computes what the same
# model computes without any scaling. The longer the text, the more it differs from the real one. A type that the
# converter does not know, such as "yarn", is refused with a message.
# Expected (guess before the run): the same logits as in transformers, up to rounding, or an error.
# Way round: none found in the converter; "linear" scaling and a plain rope_theta are converted as they stand.
#
# Output seen with transformers 5.23.0, torch 2.13.0: positions at which the most likely next token is the same.
#     llama3    100 tokens: as transformers most, as transformers without scaling all
#     llama3   3000 tokens: as transformers under half, as transformers without scaling all
#     linear    100 tokens: as transformers all, as transformers without scaling under half
#     linear   3000 tokens: as transformers all, as transformers without scaling under half
#     default   100 tokens: as transformers all, as transformers without scaling all
#     default  3000 tokens: as transformers all, as transformers without scaling all
#     yarn     NotImplementedError: RoPE scaling type 'yarn' is not yet implemented
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ctranslate2==4.8.5 transformers==5.23.0 torch==2.13.0 tokenizers==0.23.3
cd "$folder"
cat > run.py <<'PYTHON'
import ctranslate2
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PLAIN = {"rope_type": "default", "rope_theta": 500_000.0}
LLAMA = {**PLAIN, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA["original_max_position_embeddings"] = 8192
LINEAR = {**PLAIN, "rope_type": "linear", "factor": 8.0}
YARN = {**PLAIN, "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 8192}
WORDS = ["<pad>", "<s>", "</s>", *map(str, range(61))]
ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
sizes = {"vocab_size": 64, "hidden_size": 128, "head_dim": 64, "intermediate_size": 128, "num_hidden_layers": 2}
words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<pad>"}


def amount(share):
    return "all" if share > 0.995 else "most" if share > 0.9 else "under half" if share < 0.5 else "some"


def model_of(rope):
    more = {"num_attention_heads": 2, "max_position_embeddings": 131_072, "rope_parameters": rope}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **ends, **more)).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2
    return model


def best_converted(rope, ids):
    model_of(rope).save_pretrained("model")
    PreTrainedTokenizerFast(tokenizer_object=words, **marks).save_pretrained("model")
    ctranslate2.converters.TransformersConverter("model").convert("converted", force=True)
    logits = ctranslate2.Generator("converted").forward_batch([[WORDS[n] for n in ids]])
    return np.array(logits)[0].argmax(-1)


for name, rope in {"llama3": LLAMA, "linear": LINEAR, "default": PLAIN, "yarn": YARN}.items():
    for length in (100, 3000):
        ids = torch.randint(3, 64, (length,), generator=torch.Generator().manual_seed(1)).tolist()
        try:
            best = best_converted(rope, ids)
        except NotImplementedError as error:
            print(f"{name:<8} {type(error).__name__}: {str(error).partition('.')[0]}")
            break
        with torch.no_grad():
            own, plain = (model_of(r)(torch.tensor([ids])).logits[0].argmax(-1).numpy() for r in (rope, PLAIN))
        same, without = amount((best == own).mean()), amount((best == plain).mean())
        print(f"{name:<8} {length:>4} tokens: as transformers {same}, as transformers without scaling {without}")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
llama3    100 tokens: as transformers most, as transformers without scaling all
llama3   3000 tokens: as transformers under half, as transformers without scaling all
linear    100 tokens: as transformers all, as transformers without scaling under half
linear   3000 tokens: as transformers all, as transformers without scaling under half
default   100 tokens: as transformers all, as transformers without scaling all
default  3000 tokens: as transformers all, as transformers without scaling all
yarn     NotImplementedError: RoPE scaling type 'yarn' is not yet implemented
TEXT
diff expected.txt seen.txt
cat seen.txt
