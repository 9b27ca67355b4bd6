#!/usr/bin/env bash
# transformers 5.23.0: legacy=True of a LlamaTokenizer is not saved, so the tokenizer read again makes other tokens.
#
# Behaviour: LlamaTokenizer reads a SentencePiece model with legacy=True, as several published models ask for, and is
# given a token for a mark. A text behind the mark begins with a blank token. save_pretrained leaves the setting out, in
# tokenizer_config.json, and what LlamaTokenizer or AutoTokenizer reads from the folder has no such blank. A model that
# was trained with the tokenizer in memory is asked in other tokens later; no warning is given, and ids still fit.
# Expected (guess before the run): a tokenizer that was saved and read again makes the same tokens.
# Way round: save at once, and train with the tokenizer that was read again; or legacy=False throughout.
#
# Output seen with transformers 5.23.0, tokenizers 0.23.3, sentencepiece 0.2.3, Python 3.11:
#     legacy=True   in memory ['[C]', '_', '7']  in the file: nothing  LlamaTokenizer ['[C]', '7']  AutoTokenizer ['[C]', '7']
#     legacy=False  in memory ['[C]', '7']  in the file: nothing  LlamaTokenizer ['[C]', '7']  AutoTokenizer ['[C]', '7']
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf==7.36.2
cd "$folder"
cat > run.py <<'PYTHON'
import json
from pathlib import Path

import sentencepiece
from transformers import AutoTokenizer, LlamaTokenizer

Path("model").mkdir()
Path("sums.txt").write_text("".join(f"{number}+{number}={2 * number}\n" for number in range(200)))
sentencepiece.SentencePieceTrainer.train(
    input="sums.txt", model_prefix="model/tokenizer", vocab_size=280, model_type="bpe", byte_fallback=True,
    split_digits=True, hard_vocab_limit=False, minloglevel=2,
)
for legacy in (True, False):
    tokenizer = LlamaTokenizer.from_pretrained("model", legacy=legacy)
    tokenizer.add_tokens(["[C]"])
    tokenizer.save_pretrained("saved")
    kept = json.loads(Path("saved/tokenizer_config.json").read_text()).get("legacy", "nothing")
    again = {kind.__name__: kind.from_pretrained("saved") for kind in (LlamaTokenizer, AutoTokenizer)}
    memory, *read = (str(each.tokenize("[C]7")).replace("\u2581", "_") for each in (tokenizer, *again.values()))
    told = "  ".join(f"{name} {tokens}" for name, tokens in zip(again, read, strict=True))
    print(f"legacy={legacy!s:<6} in memory {memory}  in the file: {kept}  {told}")
PYTHON
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py 2> errors) || { cat errors; exit 1; }
echo "$found"
wanted="legacy=True   in memory ['[C]', '_', '7']  in the file: nothing  LlamaTokenizer ['[C]', '7']  AutoTokenizer ['[C]', '7']
legacy=False  in memory ['[C]', '7']  in the file: nothing  LlamaTokenizer ['[C]', '7']  AutoTokenizer ['[C]', '7']"
[ "$found" = "$wanted" ] || { echo "another output than the one described" >&2; exit 1; }
