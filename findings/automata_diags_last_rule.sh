#!/usr/bin/env bash
# automata-diags 0.6.0: of two rules for one state and symbol the last one wins, without a word.
#
# Behaviour: TuringMachine.from_string takes a text that gives the state q two rules for the symbol 1, keeps the second one
# and runs another machine than the one that its first rule describes. Lines with four values or another direction are
# refused, so the parser does check its text.
# Expected (guess before the run): a ValueError that names the second rule, as for the other mistakes.
# Way round: count rules and transitions of what was read, or read the text with a parser that refuses such a pair.
#
# Output seen with Python 3.11:
#     two rules in the text, one in the machine: ('h', '0', 'L')
#     four values: ValueError
#     direction U: ValueError
#
# Installs automata-diags in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > run.py <<'PYTHON'
from automata.backend.grammar.turing_machines.standard import TuringMachine


def read(text):
    return TuringMachine.from_string(text, "q", {"h"})


rules = read("q,1,h,1,R; q,1,h,0,L").transitions
[(state, own)] = [(state, own) for state, own in rules.items() if own]
[(then, write, move)] = own.values()
print(f"two rules in the text, one in the machine: {(*map(str, (then, write)), move)}")
for name, text in (("four values", "q,1,h,1"), ("direction U", "q,1,h,1,U")):
    try:
        read(text)
        print(f"{name}: taken")
    except ValueError:
        print(f"{name}: ValueError")
PYTHON
python3 -m venv env
env/bin/python -m pip install --quiet automata-diags==0.6.0
env/bin/python run.py | tee seen
diff seen - <<'SEEN'
two rules in the text, one in the machine: ('h', '0', 'L')
four values: ValueError
direction U: ValueError
SEEN
