#!/usr/bin/env bash
# onnxruntime-genai 0.18.0: the normalizer of a tokenizer is left out, and its blank in front, in silence.
#
# Behaviour: og.Tokenizer reads a byte-level BPE from tokenizer.json and makes the tokens that transformers makes, until
# the file has a normalizer or add_prefix_space. What these change in a text stays as it was: capitals, blanks at the
# ends, signs that training wrote otherwise. The model is asked in tokens that it seldom or never saw. What it does not
# know elsewhere is refused: a word-level model, or a pattern with a lookahead, is an error when the tokenizer is read.
# Expected (guess before the run): the ids of transformers, or an error as for those.
# Way round: encode with the tokenizers library, and give the ids to append_tokens.
#
# Output seen with transformers 5.23.0, tokenizers 0.23.3; the ids of transformers and those of og.Tokenizer as texts:
#     nothing more      same ids   as: '3 x 4 = 12 Carry '   '3 x 4 = 12 Carry '
#     Replace           other ids  as: '3 * 4 = 12 Carry '   '3 x 4 = 12 Carry '
#     Lowercase         other ids  as: '3 x 4 = 12 carry '   '3 x 4 = 12 Carry '
#     Strip             other ids  as: '3 x 4 = 12 Carry'    '3 x 4 = 12 Carry '
#     Prepend           other ids  as: '=3 x 4 = 12 Carry '  '3 x 4 = 12 Carry '
#     add_prefix_space  other ids  as: ' 3 x 4 = 12 Carry '  '3 x 4 = 12 Carry '
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime-genai==0.18.0 onnxruntime==1.32.0 \
    transformers==5.23.0 tokenizers==0.23.3
cd "$folder"
cat > run.py <<'PYTHON'
import json
from pathlib import Path

import onnxruntime_genai as og
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

MARKS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
KINDS = {
    "nothing more": (None, False),
    "Replace": (normalizers.Replace("x", "*"), False),
    "Lowercase": (normalizers.Lowercase(), False),
    "Strip": (normalizers.Strip(), False),
    "Prepend": (normalizers.Prepend("="), False),
    "add_prefix_space": (None, True),
}
texts = [f"{n * 7919 % 1000} x {n} = {n * 7919 % 1000 * n} carry state" for n in range(500)]
text = "3 x 4 = 12 Carry "
ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": 400, "context_length": 64}
sizes = {"head_size": 8, "hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "num_key_value_heads": 1}
names = {"inputs": {"input_ids": "input_ids"}, "outputs": {"logits": "logits"}}
decoder = {"filename": "none.onnx", **sizes, **names}


def tokenizer_of(normalizer, prefix):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*MARKS.values()], initial_alphabet=alphabet, show_progress=False
    )
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **MARKS)


for name, (normalizer, prefix) in KINDS.items():
    own = tokenizer_of(normalizer, prefix)
    own.save_pretrained("model")
    Path("model/genai_config.json").write_text(
        json.dumps({"model": {"type": "llama", "decoder": decoder, **ends}, "search": {}})
    )
    theirs = og.Tokenizer(og.Config("model"))
    ids = own(text)["input_ids"]
    read = [int(token) for token in theirs.encode(text)]
    same = "same ids" if read == ids else "other ids"
    print(f"{name:<17} {same:<10} as: {own.decode(ids)!r:<21} {own.decode(read)!r}")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
nothing more      same ids   as: '3 x 4 = 12 Carry '   '3 x 4 = 12 Carry '
Replace           other ids  as: '3 * 4 = 12 Carry '   '3 x 4 = 12 Carry '
Lowercase         other ids  as: '3 x 4 = 12 carry '   '3 x 4 = 12 Carry '
Strip             other ids  as: '3 x 4 = 12 Carry'    '3 x 4 = 12 Carry '
Prepend           other ids  as: '=3 x 4 = 12 Carry '  '3 x 4 = 12 Carry '
add_prefix_space  other ids  as: ' 3 x 4 = 12 Carry '  '3 x 4 = 12 Carry '
TEXT
diff expected.txt seen.txt
cat seen.txt
