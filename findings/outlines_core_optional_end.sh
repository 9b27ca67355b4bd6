#!/usr/bin/env bash
# outlines-core 0.2.14: an optional end of a pattern is never written where it begins with a token of its own.
#
# Behaviour: with the pattern [0-9]+(\.[0-9]+)? and a vocabulary in which "." is a token, the index allows digits and
# the end behind "12", and no ".". A model can write 12, and never 12.5. It is so wherever the text may end, if the next
# token leads to a place where it may not end. A token ".5" is allowed there. A pattern with a fixed end, such as a
# newline, has no such gap, so it is not seen inside a JSON object. The schema of a number alone has it. Python's re
# takes all these texts.
# Expected (guess before the run): each text that the pattern matches can be written, token by token.
# Way round: a fixed end, ([0-9]+(\.[0-9]+)?)\n in place of [0-9]+(\.[0-9]+)?. Another order of choices does not help.
#
# Output seen: pattern, text, a token more than single characters, and how far the text goes; "$" is the end.
#     [0-9]+(\.[0-9]+)?         '12.5'             behind '12' are allowed $0-9
#     [0-9]+(\.[0-9]+)?         '12.5'    with .5  all of it
#     [0-9]+(\.[0-9]+)?\n       '12.5\n'           all of it
#     [0-9]+\.[0-9]+|[0-9]+     '12.5'             behind '12' are allowed $0-9
#     [0-9]+( R [0-9]+)?        '12 R 5'           behind '12' are allowed $0-9
#     [0-9]{1,3}(,[0-9]{3})*    '1,250'            behind '1' are allowed $0-9
#     (\|[0-9])+                '|2|1'             behind '|2' are allowed $
#     [0-9]+%?                  '12%'              all of it
#     {"type": "number"}        '12.5'             behind '12' are allowed $0-9
#
# Installs outlines-core in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet outlines-core==0.2.14
cd "$folder"
cat > run.py <<'PYTHON'
import re

from outlines_core import Guide, Index, Vocabulary
from outlines_core.json_schema import build_regex_from_schema

CASES = [
    (r"[0-9]+(\.[0-9]+)?", "12.5", []),
    (r"[0-9]+(\.[0-9]+)?", "12.5", [".5"]),
    (r"[0-9]+(\.[0-9]+)?\n", "12.5\n", []),
    (r"[0-9]+\.[0-9]+|[0-9]+", "12.5", []),
    (r"[0-9]+( R [0-9]+)?", "12 R 5", []),
    (r"[0-9]{1,3}(,[0-9]{3})*", "1,250", []),
    (r"(\|[0-9])+", "|2|1", []),
    (r"[0-9]+%?", "12%", []),
    ('{"type": "number"}', "12.5", []),
]
for pattern, text, more in CASES:
    name, pattern = pattern, build_regex_from_schema(pattern) if pattern[0] == "{" else pattern
    words = [*"0123456789.,|%R \n", *more]
    index = Index(pattern, Vocabulary(len(words), {word: [n] for n, word in enumerate(words)}))
    guide = Guide(index)
    left, written = text, ""
    while left:
        word = next((word for word in more if left.startswith(word)), left[0])
        allowed = guide.get_tokens()
        if words.index(word) not in allowed:
            break
        guide.advance(words.index(word))
        written, left = written + word, left.removeprefix(word)
    names = sorted("$" if n == len(words) else words[n] for n in allowed)
    names = "".join(names).replace("0123456789", "0-9").replace("\n", "\\n")
    assert re.fullmatch(pattern, text)
    end = "all of it" if not left else f"behind {written!r} are allowed {names}"
    print(f"{name:<25} {text!r:<9} {'with ' + more[0] if more else '':<8} {end}")
PYTHON
"$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
[0-9]+(\.[0-9]+)?         '12.5'             behind '12' are allowed $0-9
[0-9]+(\.[0-9]+)?         '12.5'    with .5  all of it
[0-9]+(\.[0-9]+)?\n       '12.5\n'           all of it
[0-9]+\.[0-9]+|[0-9]+     '12.5'             behind '12' are allowed $0-9
[0-9]+( R [0-9]+)?        '12 R 5'           behind '12' are allowed $0-9
[0-9]{1,3}(,[0-9]{3})*    '1,250'            behind '1' are allowed $0-9
(\|[0-9])+                '|2|1'             behind '|2' are allowed $
[0-9]+%?                  '12%'              all of it
{"type": "number"}        '12.5'             behind '12' are allowed $0-9
TEXT
diff expected.txt seen.txt
cat seen.txt
