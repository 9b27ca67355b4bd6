#!/usr/bin/env bash
# llguidance 1.9.1: a long number in a JSON schema is rounded, and the model is forced to write the rounded number.
#
# Behaviour: const, enum, minimum and maximum of a schema are read as floats. {"const": 2**53 + 1} allows 2**53 and no
# other text. Of a number of 30 digits 16 or 17 stay, the others are zeros. Bounds are cut to 64 bits as well: between
# 10**19 and 10**20 one number is allowed, 2**63 - 1, which is not between them. No error is raised. An integer without
# bounds may have any number of digits. outlines-core 0.2.14 is exact below 2**64, and above it wants 1e+29 or the like.
# Expected (guess before the run): the number that stands in the schema, or an error, as xgrammar 0.2.9 has for bounds.
# Way round: a regular expression in place of the number: both engines then keep each digit.
#
# Output seen; in each line what the schema says, and the one text that is allowed:
#     llguidance     const 9007199254740993                              9007199254740992
#     llguidance     const 123456789012345678901234567890                123456789012345680000000000000
#     llguidance     enum of one number, 9007199254740993                9007199254740992
#     llguidance     minimum and maximum 9007199254740993                9007199254740992
#     llguidance     minimum 10000000000000000000, maximum ten times it  9223372036854775807
#     llguidance     pattern of 123456789012345678901234567890           123456789012345678901234567890
#     outlines-core  const 9007199254740993                              9007199254740993
#     outlines-core  const 123456789012345678901234567890                1.2345678901234568e+29
#     outlines-core  pattern of 123456789012345678901234567890           123456789012345678901234567890
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llguidance==1.9.1 outlines-core==0.2.14 tokenizers==0.23.3 numpy==2.4.6
cd "$folder"
cat > run.py <<'PYTHON'
import json

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from outlines_core import Guide, Index, Vocabulary
from outlines_core.json_schema import build_regex_from_schema
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CHARS = list("0123456789-+.e")
END = len(CHARS)
tokenizer = Tokenizer(models.BPE({**{char: n for n, char in enumerate(CHARS)}, "</s>": END}, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
tokenizer.decoder = decoders.ByteLevel()
llguidance_tokenizer = LLTokenizer(tokenizer.to_str(), eos_token=END)
vocabulary = Vocabulary(END, {char: [n] for n, char in enumerate(CHARS)})


def only(allowed, advance):
    """The one text that is allowed: at each place one token, or the end."""
    text = ""
    while (tokens := allowed()) and tokens != [END]:
        assert len(tokens) == 1, (text, tokens)
        text += CHARS[tokens[0]]
        advance(tokens[0])
    return text


def by_llguidance(grammar):
    matcher = LLMatcher(llguidance_tokenizer, grammar)
    assert not matcher.is_error(), matcher.get_error()
    mask = allocate_token_bitmask(1, END + 1)

    def allowed():
        if matcher.is_stopped():
            return []
        fill_next_token_bitmask(matcher, mask)
        bits = np.unpackbits(mask[0].view(np.uint8), bitorder="little")[: END + 1]
        return np.flatnonzero(bits).tolist()

    return only(allowed, matcher.consume_token)


def by_outlines(regex):
    guide = Guide(Index(regex, vocabulary))
    return only(guide.get_tokens, guide.advance)


def show(engine, name, text):
    print(f"{engine:<14} {name:<51} {text}")


near, long = 2**53 + 1, 123456789012345678901234567890
SCHEMAS = {
    f"const {near}": {"const": near},
    f"const {long}": {"const": long},
    f"enum of one number, {near}": {"enum": [near]},
    f"minimum and maximum {near}": {"type": "integer", "minimum": near, "maximum": near},
    f"minimum {10**19}, maximum ten times it": {"type": "integer", "minimum": 10**19, "maximum": 10**20},
}
for name, schema in SCHEMAS.items():
    show("llguidance", name, by_llguidance(LLMatcher.grammar_from_json_schema(json.dumps(schema))))
show("llguidance", f"pattern of {long}", by_llguidance(LLMatcher.grammar_from_regex(str(long))))
for name, schema in list(SCHEMAS.items())[:2]:
    show("outlines-core", name, by_outlines(build_regex_from_schema(json.dumps(schema))))
show("outlines-core", f"pattern of {long}", by_outlines(str(long)))
PYTHON
found=$("$folder/venv/bin/python" run.py 2> errors) || { cat errors; exit 1; }
echo "$found"
wanted='llguidance     const 9007199254740993                              9007199254740992
llguidance     const 123456789012345678901234567890                123456789012345680000000000000
llguidance     enum of one number, 9007199254740993                9007199254740992
llguidance     minimum and maximum 9007199254740993                9007199254740992
llguidance     minimum 10000000000000000000, maximum ten times it  9223372036854775807
llguidance     pattern of 123456789012345678901234567890           123456789012345678901234567890
outlines-core  const 9007199254740993                              9007199254740993
outlines-core  const 123456789012345678901234567890                1.2345678901234568e+29
outlines-core  pattern of 123456789012345678901234567890           123456789012345678901234567890'
[ "$found" = "$wanted" ] || { echo "another output than the one described" >&2; exit 1; }
