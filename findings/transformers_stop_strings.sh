#!/usr/bin/env bash
# transformers 5.23.0: stop_strings needs a tokenizer that knows the letters a to f, whatever the strings are.
#
# Behaviour: a tokenizer of digits and signs, as small models of arithmetic have it, and generate(stop_strings=["="]).
# Before the first token is made, a ValueError says "substring not found" and nothing of tokenizers or of strings to stop
# at: the text "abcdef" is encoded to see how tokens follow a text, and is looked for in what comes back. With these six
# letters in the vocabulary, which no text of the task uses, the same model stops at "="; the tokenizer must also have a
# decoder that puts no blanks between tokens.
# Expected (guess before the run): generation stops at "=", which is a token of its own.
# Way round: the token of "=" as eos_token_id, a StoppingCriteria of one's own, or the letters in the vocabulary.
#
# Output seen with transformers 5.23.0, tokenizers 0.23.3, torch 2.13.0:
#     digits                         ValueError substring not found
#     digits, joined                 ValueError substring not found
#     digits, joined, eos_token_id   1+1=
#     digits and letters             ValueError substring not found
#     digits and letters, joined     1+1=
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3 torch==2.13.0
cd "$folder"
cat > run.py <<'PYTHON'
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def answer(words, decoder, **options):
    """What follows "1+1" in a model that says "=" whatever it reads."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if decoder:
        core.decoder = decoder
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>")
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), pad_token_id=0, eos_token_id=1, **SIZES)).eval()
    with torch.no_grad():
        model.model.norm.weight.fill_(0)
    head = torch.nn.Linear(16, len(words))
    with torch.no_grad():
        head.bias.fill_(0)[words.index("=")] = 1
    model.lm_head = head
    if "stop_strings" in options:
        options["tokenizer"] = tokenizer
    rows = tokenizer(["1+1"], return_tensors="pt", return_token_type_ids=False)
    try:
        return tokenizer.decode(model.generate(**rows, max_new_tokens=5, do_sample=False, **options)[0])
    except ValueError as error:
        return f"ValueError {error}"


digits = ["<pad>", "</s>", *"0123456789+="]
letters, joined, stop = [*digits, *"abcdef"], decoders.Fuse(), {"stop_strings": ["="]}
print("digits                        ", answer(digits, None, **stop))
print("digits, joined                ", answer(digits, joined, **stop))
print("digits, joined, eos_token_id  ", answer(digits, joined, eos_token_id=digits.index("=")))
print("digits and letters            ", answer(letters, None, **stop))
print("digits and letters, joined    ", answer(letters, joined, **stop))
PYTHON
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py 2> errors) || { cat errors; exit 1; }
echo "$found"
wanted='digits                         ValueError substring not found
digits, joined                 ValueError substring not found
digits, joined, eos_token_id   1+1=
digits and letters             ValueError substring not found
digits and letters, joined     1+1='
[ "$found" = "$wanted" ] || { echo "another output than the one described" >&2; exit 1; }
