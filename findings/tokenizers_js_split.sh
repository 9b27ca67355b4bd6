#!/usr/bin/env bash
# @huggingface/tokenizers 0.2.0 (npm): three behaviours of Split are done as "isolated", in silence.
#
# Behaviour: the tokenizer of Transformers.js reads a tokenizer.json that tokenizers of Python wrote. The pre-tokenizer
# Split knows five behaviours; here "removed" and "isolated" are done, and "merged_with_previous", "merged_with_next" and
# "contiguous" are done as "isolated". All ids exist in the vocabulary, and the text comes back whole: the model is asked
# in tokens that it was not trained on. A pre-tokenizer that the package does not know, such as CharDelimiterSplit, is
# refused.
# Expected (guess before the run): the ids of tokenizers for all five, or an error for what is not supported.
# Way round: "isolated" with a pattern that holds the neighbour too, such as \d+[+=]?; or a comparison of ids before use.
#
# Output seen with tokenizers 0.23.3, Python 3.11, Node.js 20; tokens of 12+3==15, of a vocabulary that holds all of them:
#     removed               Python 12 3 15           npm 12 3 15
#     isolated              Python 12 + 3 = = 15     npm 12 + 3 = = 15
#     merged_with_previous  Python 12+ 3= = 15       npm 12 + 3 = = 15
#     merged_with_next      Python 12 +3 = =15       npm 12 + 3 = = 15
#     contiguous            Python 12 + 3 == 15      npm 12 + 3 = = 15
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
cd "$folder"
npm init -y > npm.txt 2>&1
npm install --silent --no-audit --no-fund @huggingface/tokenizers@0.2.0 >> npm.txt 2>&1 || { cat npm.txt; exit 1; }
cat > write.py <<'PYTHON'
import json

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

words = ["<unk>", "12", "3", "15", "+", "=", "==", "12+", "3=", "+3", "=15"]
seen = {}
for behaviour in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[+=]"), behaviour)
    tokenizer.save(f"{behaviour}.json")
    seen[behaviour] = tokenizer.encode("12+3==15").ids
json.dump({"words": words, "seen": seen}, open("python.json", "w"))
PYTHON
"$folder/venv/bin/python" write.py
cat > compare.mjs <<'JAVASCRIPT'
import fs from "fs";
import { Tokenizer } from "@huggingface/tokenizers";

const { words, seen } = JSON.parse(fs.readFileSync("python.json", "utf8"));
const tokens = (ids) => ids.map((id) => words[id]).join(" ");
for (const [behaviour, ids] of Object.entries(seen)) {
  const npm = new Tokenizer(JSON.parse(fs.readFileSync(`${behaviour}.json`, "utf8")), { unk_token: "<unk>" });
  console.log(behaviour.padEnd(21), "Python", tokens(ids).padEnd(17), "npm", tokens(npm.encode("12+3==15").ids));
}
JAVASCRIPT
node compare.mjs > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
removed               Python 12 3 15           npm 12 3 15
isolated              Python 12 + 3 = = 15     npm 12 + 3 = = 15
merged_with_previous  Python 12+ 3= = 15       npm 12 + 3 = = 15
merged_with_next      Python 12 +3 = =15       npm 12 + 3 = = 15
contiguous            Python 12 + 3 == 15      npm 12 + 3 = = 15
TEXT
diff expected.txt seen.txt
cat seen.txt
