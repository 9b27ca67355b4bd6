#!/usr/bin/env bash
# inspect-ai 0.3.285: its mock model downloads a vocabulary to count tokens; without a network the evaluation fails.
#
# Behaviour: `mockllm/model` with `custom_outputs` stands for a model in tests. Before it returns an output that has no
# `usage`, it counts the tokens of the prompt with tiktoken's o200k_base, which is fetched from the network. Where there is
# none, the sample fails with a ConnectionError and the log's status is `error`.
# Expected (guess before the run): the mock returns the outputs that it was given, and needs no network.
# Way round: give every output a `usage`.
#
# Output seen with Python 3.11, tiktoken 0.14.0; the network is cut off by a proxy that does not answer:
#     no usage   error    tiktoken fetches o200k_base
#     usage      success
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet inspect-ai==0.3.285 tiktoken==0.14.0
cd "$folder"
cat > run.py <<'PYTHON'
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import exact

task = Task(dataset=[Sample(input="1+2=", target="3")], scorer=exact())
for name, usage in (("no usage", None), ("usage", ModelUsage(input_tokens=4, output_tokens=1, total_tokens=5))):
    output = ModelOutput.from_content("mock", "3")
    output.usage = usage
    model = get_model("mockllm/model", custom_outputs=[output], memoize=False)
    [log] = eval(task, model=model, display="none", log_dir="logs")
    why = "tiktoken fetches o200k_base" if log.error and "o200k_base.tiktoken" in log.error.message else ""
    print(f"{name:<10} {log.status:<8} {why}".rstrip())
PYTHON
export HTTPS_PROXY=http://127.0.0.1:9 TIKTOKEN_CACHE_DIR="$folder/empty"
found=$("$folder/venv/bin/python" run.py 2> errors) || { cat errors; exit 1; }
echo "$found"
wanted='no usage   error    tiktoken fetches o200k_base
usage      success'
[ "$found" = "$wanted" ] || { cat errors; echo "another output than the one described" >&2; exit 1; }
