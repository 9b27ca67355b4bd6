#!/usr/bin/env bash
# reasoning-gym 0.1.25: a right number with a newline behind it scores as much as a wrong number, in most arithmetic tasks.
#
# Behaviour: score_answer of basic_arithmetic, gcd, lcm, count_bits and simple_equations gives 1 only for the exact text
# of the answer. A text that holds the answer gets its share of the length: the right number with a newline, and a wrong
# number with one digit more, get the same. chain_sum and products take the newline, and give the wrong number its share
# as well. A model that learns from this reward is not told to leave the digit; of 100 digits it is worth 1 in 100.
# Expected (guess before the run): blanks round a number do not count, in any dataset of numbers.
# Way round: strip() what a model wrote; for numbers, 1 or 0 by comparing integers.
#
# Output seen with Python 3.11, sympy 1.14.0; seed 7:
#     basic_arithmetic  right: 1.00  with a newline: 0.88  a digit more: 0.88
#     chain_sum         right: 1.00  with a newline: 1.00  a digit more: 0.75
#     count_bits        right: 1.00  with a newline: 0.67  a digit more: 0.67
#     gcd               right: 1.00  with a newline: 0.50  a digit more: 0.50
#     lcm               right: 1.00  with a newline: 0.67  a digit more: 0.67
#     products          right: 1.00  with a newline: 1.00  a digit more: 0.91
#     simple_equations  right: 1.00  with a newline: 0.67  a digit more: 0.67
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet reasoning-gym==0.1.25 sympy==1.14.0
cd "$folder"
cat > run.py <<'PYTHON'
import reasoning_gym

for name in ("basic_arithmetic", "chain_sum", "count_bits", "gcd", "lcm", "products", "simple_equations"):
    rows = reasoning_gym.create_dataset(name, seed=7, size=3)
    row = rows[2]
    answer = row["answer"]
    texts = {"right": answer, "with a newline": f"{answer}\n", "a digit more": f"{answer}7"}
    print(f"{name:<17}", "  ".join(f"{kind}: {rows.score_answer(text, row):.2f}" for kind, text in texts.items()))
PYTHON
"$folder/venv/bin/python" run.py > seen.txt
cat > expected.txt <<'TEXT'
basic_arithmetic  right: 1.00  with a newline: 0.88  a digit more: 0.88
chain_sum         right: 1.00  with a newline: 1.00  a digit more: 0.75
count_bits        right: 1.00  with a newline: 0.67  a digit more: 0.67
gcd               right: 1.00  with a newline: 0.50  a digit more: 0.50
lcm               right: 1.00  with a newline: 0.67  a digit more: 0.67
products          right: 1.00  with a newline: 1.00  a digit more: 0.91
simple_equations  right: 1.00  with a newline: 0.67  a digit more: 0.67
TEXT
diff expected.txt seen.txt
cat seen.txt
