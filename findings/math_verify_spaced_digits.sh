#!/usr/bin/env bash
# math-verify 0.9.0: a boxed number whose digits stand apart is read as the sum of its digits.
#
# Behaviour: models that write one digit after another with blanks between, as it is done to have one token a digit, box
# `2 1` for 21. parse reads the sum 2 + 1: the answer is wrong where 21 is asked, and right where 3 is asked. Neither
# parse nor verify says anything. The same text without a box is read as its first digit, 1 (of "1 2", the last, too).
# Expected (guess before the run): 21, or nothing that can be read; never equal to 3.
# Way round: take blanks out of an answer before it is read, or compare integers as text.
#
# Output seen with math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0, Python 3.11:
#     boxed  2 1       3  equals 21: False  equals 3: True
#     boxed  2\,1      3  equals 21: False  equals 3: True
#     boxed  1 0 2     3  equals 102: False  equals 3: True
#     plain  2 1       1  equals 21: False  equals 3: False
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet math-verify==0.9.0 latex2sympy2_extended==1.11.0 sympy==1.14.0
cd "$folder"
cat > run.py <<'PYTHON'
from math_verify import parse, verify

for kind, text in (("boxed", "2 1"), ("boxed", r"2\,1"), ("boxed", "1 0 2"), ("plain", "2 1")):
    read = parse(r"\boxed{" + text + "}" if kind == "boxed" else text)
    meant = text.replace(" ", "").replace(r"\,", "")
    equal = {number: verify(parse(number), read) for number in (meant, "3")}
    print(f"{kind}  {text:<9} {read[0]}  " + "  ".join(f"equals {key}: {value}" for key, value in equal.items()))
PYTHON
"$folder/venv/bin/python" run.py > seen.txt
cat > expected.txt <<'TEXT'
boxed  2 1       3  equals 21: False  equals 3: True
boxed  2\,1      3  equals 21: False  equals 3: True
boxed  1 0 2     3  equals 102: False  equals 3: True
plain  2 1       1  equals 21: False  equals 3: False
TEXT
diff expected.txt seen.txt
cat seen.txt
