#!/usr/bin/env bash
# openvino-tokenizers 2026.4.1: words split at blanks are split at signs as well, and -9 is no word any more.
#
# Behaviour: a word-level tokenizer with WhitespaceSplit takes what stands between blanks for a word. The converted one
# cuts where signs meet letters or digits too, as the other splitter, Whitespace, does: "-9" becomes "-" and "9", "1+1"
# three words. Ids are other ones, or unknown. A tokenizer of single characters gives the right ids; its decoder, Fuse,
# is left out, and the text comes back with a blank between all characters, "1 2" for 12. Nothing is said.
# Expected (guess before the run): the same ids and texts, or the error that other parts get which it does not know.
# Way round: for words none; for characters, join the tokens oneself.
#
# Output seen with openvino 2026.4.1, transformers 5.23.0, tokenizers 0.23.3:
#     WhitespaceSplit  12 + 9 = 3   same ids; same text
#     WhitespaceSplit  12 + -9 = 3  other ids: '12' '+' '-' '9' '=' '3'; same text
#     WhitespaceSplit  1+1 = 2      other ids: '1' '+' '1' '=' '2'; same text
#     characters       12 + 9 = 3   same ids; '12 + 9 = 3' becomes '1 2   +   9   =   3'
#     characters       12 + -9 = 3  same ids; '12 + -9 = 3' becomes '1 2   +   - 9   =   3'
#     characters       1+1 = 2      same ids; '1+1 = 2' becomes '1 + 1   =   2'
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino-tokenizers==2026.4.1.0 openvino==2026.4.1 \
    transformers==5.23.0 tokenizers==0.23.3
cd "$folder"
cat > run.py <<'PYTHON'
import openvino
from openvino_tokenizers import convert_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

MARKS = {"pad_token": "<pad>", "unk_token": "<unk>"}
WORDS = ["12", "-9", "9", "3", "-", "+", "=", "1", "2", " ", "1+1"]


def tokenizer_of(pre_tokenizer, decoder=None):
    words = {word: n for n, word in enumerate([*MARKS.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizer
    if decoder:
        tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **MARKS)


KINDS = {
    "WhitespaceSplit": tokenizer_of(pre_tokenizers.WhitespaceSplit()),
    "characters": tokenizer_of(pre_tokenizers.Split(Regex("."), "isolated"), decoders.Fuse()),
}
for name, own in KINDS.items():
    encoder, decoder = (openvino.compile_model(model, "CPU") for model in convert_tokenizer(own, with_detokenizer=True))
    for text in ("12 + 9 = 3", "12 + -9 = 3", "1+1 = 2"):
        ids = own(text)["input_ids"]
        read = [int(token) for token in encoder([text])["input_ids"][0]]
        tokens = " ".join(map(repr, own.convert_ids_to_tokens(read)))
        same = "same ids" if read == ids else f"other ids: {tokens}"
        back, wanted = decoder([ids])["string_output"][0], own.decode(ids)
        same_text = "same text" if back == wanted else f"{wanted!r} becomes {str(back)!r}"
        print(f"{name:<16} {text:<12} {same}; {same_text}")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
WhitespaceSplit  12 + 9 = 3   same ids; same text
WhitespaceSplit  12 + -9 = 3  other ids: '12' '+' '-' '9' '=' '3'; same text
WhitespaceSplit  1+1 = 2      other ids: '1' '+' '1' '=' '2'; same text
characters       12 + 9 = 3   same ids; '12 + 9 = 3' becomes '1 2   +   9   =   3'
characters       12 + -9 = 3  same ids; '12 + -9 = 3' becomes '1 2   +   - 9   =   3'
characters       1+1 = 2      same ids; '1+1 = 2' becomes '1 + 1   =   2'
TEXT
diff expected.txt seen.txt
cat seen.txt
