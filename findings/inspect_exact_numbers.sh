#!/usr/bin/env bash
# inspect-ai 0.3.285: the scorer exact() takes -21 for 21, and one number of 20 digits for another.
#
# Behaviour: before exact() compares target and answer, it cuts both at blanks and at minus signs, takes the punctuation
# away, and reads as a float what looks like a number. So an answer with the wrong sign is right, and of a long number
# only the first 16 or so digits count. Small numbers that differ in a digit are told apart: a short try does not show it.
# Expected (guess before the run): the two texts are compared as they are.
# Way round: a scorer of one's own that compares the texts.
#
# Output seen with Python 3.11; target, answer, verdict (C is correct):
#     21 22 I
#     21 -21 C
#     12345678901234567890 12345678901234567891 C
#     12-9 12 9 C
#
# Installs inspect-ai in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet inspect-ai==0.3.285
cd "$folder"
cat > run.py <<'PYTHON'
import asyncio

from inspect_ai.model import ModelName, ModelOutput
from inspect_ai.scorer import Target, exact
from inspect_ai.solver import TaskState


async def verdict(target, answer):
    output = ModelOutput.from_content("mockllm/model", answer)
    model = ModelName("mockllm/model")
    state = TaskState(model=model, sample_id=1, epoch=1, input="", messages=[], output=output)
    return (await exact()(state, Target(target))).value


for target, answer in (("21", "22"), ("21", "-21"), ("1234567890" * 2, "1234567890" + "1234567891"), ("12-9", "12 9")):
    print(target, answer, asyncio.run(verdict(target, answer)))
PYTHON
"$folder/venv/bin/python" run.py > seen.txt
cat > expected.txt <<'TEXT'
21 22 I
21 -21 C
12345678901234567890 12345678901234567891 C
12-9 12 9 C
TEXT
diff expected.txt seen.txt
cat seen.txt
