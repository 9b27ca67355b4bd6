#!/usr/bin/env bash
# @huggingface/jinja 0.5.11 (npm): strip takes no characters, "12" equals 12, and -7 % 3 is -1, all in silence.
#
# Behaviour: the engine by which Transformers.js renders chat templates takes strip, lstrip and rstrip with an argument
# and removes blanks in place of the characters named there. It compares a text and a number as JavaScript's == does, so a
# branch for the number 12 is taken for the text "12", and `in` is not. The remainder of a negative number has
# JavaScript's sign. jinja2, for which the templates of models are written, and minijinja give the other texts.
# Expected (guess before the run): the text of jinja2, or an error, as for filters that the package does not know.
# Way round: split or replace in place of strip; `| int` or `| string` on both sides; (x % 3 + 3) % 3.
#
# Output seen with jinja2 3.1.6, Python 3.11, Node.js 20:
#     {{ '007'.lstrip('0') }}                  Python 7        npm 007
#     {{ '21=='.rstrip('=') }}                 Python 21       npm 21==
#     {{ '#21#'.strip('#') }}                  Python 21       npm #21#
#     {{ ' 21 '.strip() }}                     Python 21       npm 21
#     {{ 'text' if '12' == 12 else 'other' }}  Python other    npm text
#     {{ 'text' if 12 in ['12'] else 'no' }}   Python no       npm no
#     {{ -7 % 3 }}                             Python 2        npm -1
#     {{ 7 % 3 }}                              Python 1        npm 1
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jinja2==3.1.6
cd "$folder"
npm init -y > npm.txt 2>&1
npm install --silent --no-audit --no-fund @huggingface/jinja@0.5.11 >> npm.txt 2>&1 || { cat npm.txt; exit 1; }
cat > write.py <<'PYTHON'
import json

import jinja2

templates = [
    "{{ '007'.lstrip('0') }}",
    "{{ '21=='.rstrip('=') }}",
    "{{ '#21#'.strip('#') }}",
    "{{ ' 21 '.strip() }}",
    "{{ 'text' if '12' == 12 else 'other' }}",
    "{{ 'text' if 12 in ['12'] else 'no' }}",
    "{{ -7 % 3 }}",
    "{{ 7 % 3 }}",
]
texts = {template: jinja2.Environment().from_string(template).render() for template in templates}
json.dump(texts, open("python.json", "w"))
PYTHON
"$folder/venv/bin/python" write.py
cat > compare.mjs <<'JAVASCRIPT'
import fs from "fs";
import { Template } from "@huggingface/jinja";

for (const [template, text] of Object.entries(JSON.parse(fs.readFileSync("python.json", "utf8")))) {
  console.log(template.padEnd(40), "Python", text.padEnd(8), "npm", new Template(template).render({}));
}
JAVASCRIPT
node compare.mjs > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
{{ '007'.lstrip('0') }}                  Python 7        npm 007
{{ '21=='.rstrip('=') }}                 Python 21       npm 21==
{{ '#21#'.strip('#') }}                  Python 21       npm #21#
{{ ' 21 '.strip() }}                     Python 21       npm 21
{{ 'text' if '12' == 12 else 'other' }}  Python other    npm text
{{ 'text' if 12 in ['12'] else 'no' }}   Python no       npm no
{{ -7 % 3 }}                             Python 2        npm -1
{{ 7 % 3 }}                              Python 1        npm 1
TEXT
diff expected.txt seen.txt
cat seen.txt
