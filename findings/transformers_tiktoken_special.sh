#!/usr/bin/env bash
# transformers 5.23.0: convert_tiktoken_to_fast gives special tokens other ids than tiktoken, in silence.
#
# Behaviour: the helper that writes tokenizer.json from a tiktoken.Encoding takes the names of the special tokens and
# leaves out their ids: they get the ids behind the last text token, in the order in which the dict names them. A gap in
# front of them, or between them, moves them down; another order swaps the end of text with another mark. Text tokens are
# right, so a short try shows nothing. A model that was trained with tiktoken reads other marks and never sees its end.
# Expected (guess before the run): the same ids as tiktoken for any text.
# Way round: in tokenizer.json put the ids of encoding._special_tokens, or compare all of them before use.
#
# Output seen with tiktoken 0.14.0, tokenizers 0.23.3; 259 text tokens, so the first free id is 259:
#     next to each other  text as in tiktoken: True  tiktoken <end> 259 <pad> 260  converted <end> 259 <pad> 260
#     gap before          text as in tiktoken: True  tiktoken <end> 264 <pad> 265  converted <end> 259 <pad> 260
#     gap between         text as in tiktoken: True  tiktoken <end> 259 <pad> 270  converted <end> 259 <pad> 260
#     other order         text as in tiktoken: True  tiktoken <end> 259 <pad> 260  converted <end> 260 <pad> 259
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3 tiktoken==0.14.0 blobfile==3.3.0
cd "$folder"
cat > run.py <<'PYTHON'
import tiktoken
from transformers import PreTrainedTokenizerFast
from transformers.integrations.tiktoken import convert_tiktoken_to_fast

tokens = [bytes([byte]) for byte in range(256)] + [b"10", b"00", b" 1"]
ranks = {token: rank for rank, token in enumerate(tokens)}
text = "1000+100 = 1100"
cases = {
    "next to each other": {"<end>": 259, "<pad>": 260},
    "gap before": {"<end>": 264, "<pad>": 265},
    "gap between": {"<end>": 259, "<pad>": 270},
    "other order": {"<pad>": 260, "<end>": 259},
}
for name, special in cases.items():
    encoding = tiktoken.Encoding(
        name="digits", pat_str=r" ?\p{N}+|[^\p{N}]+", mergeable_ranks=ranks, special_tokens=special
    )
    convert_tiktoken_to_fast(encoding, name)
    converted = PreTrainedTokenizerFast.from_pretrained(name)
    same = converted.encode(text) == encoding.encode(text)
    marks = ("<end>", "<pad>")
    before = [f"{mark} {encoding.encode(mark, allowed_special='all')[0]}" for mark in marks]
    after = [f"{mark} {converted.encode(mark)[0]}" for mark in marks]
    print(f"{name:<19} text as in tiktoken: {same}  tiktoken", *before, " converted", *after, flush=True)
PYTHON
"$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
next to each other  text as in tiktoken: True  tiktoken <end> 259 <pad> 260  converted <end> 259 <pad> 260
gap before          text as in tiktoken: True  tiktoken <end> 264 <pad> 265  converted <end> 259 <pad> 260
gap between         text as in tiktoken: True  tiktoken <end> 259 <pad> 270  converted <end> 259 <pad> 260
other order         text as in tiktoken: True  tiktoken <end> 259 <pad> 260  converted <end> 260 <pad> 259
TEXT
diff expected.txt seen.txt
cat seen.txt
