#!/usr/bin/env bash
# lm-eval 0.4.13: where the first target reads like a Python list, right answers score 0 in all rows, and wrong ones 1.
#
# Behaviour: a task of generate_until with doc_to_target: "{{answer}}" and exact_match. A target that begins with "[" and
# ends with "]", as lists sorted or reversed do, is made a Python list. Where that is so in the first row, every row's
# target is taken for several allowed ones: of the list its numbers, which equal no text, of a plain text such as 12 its
# characters, so that 1 is right. The same rows in another order give other scores. With the column's name in place of the
# template (doc_to_target: answer) nothing is made a list.
# Expected (guess before the run): a target is the text that the template makes.
# Way round: the column's name, or a word before the list.
#
# Output seen with Python 3.11, datasets 5.0.0; answers are the texts of the column, or 1:
#     template, list first      right answers 0.0  answer 1 0.5
#     template, list second     right answers 1.0  answer 1 0.0
#     name of the column        right answers 1.0  answer 1 0.0
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lm-eval==0.4.13 datasets==5.0.0
cd "$folder"
cat > run.py <<'PYTHON'
import json

import lm_eval
from lm_eval.api.model import LM


class Answers(LM):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def generate_until(self, requests, **options):
        return [self.answer or request.doc["answer"] for request in requests]

    def loglikelihood(self, requests, **options):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def accuracy(name, rows, target, answer=None):
    with open(f"{name}.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": target,
        "generation_kwargs": {"until": ["<end>"]},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "num_fewshot": 0,
    }
    found = lm_eval.simple_evaluate(model=Answers(answer), tasks=[task], bootstrap_iters=0)
    return float(found["results"][name]["exact_match,none"])


rows = [{"question": "sort 2 1", "answer": "[1, 2]"}, {"question": "7 + 5", "answer": "12"}]
for number, (what, own, target) in enumerate((
    ("template, list first", rows, "{{answer}}"),
    ("template, list second", rows[::-1], "{{answer}}"),
    ("name of the column", rows, "answer"),
)):
    right, one = (accuracy(f"task{number}{kind}", own, target, kind or None) for kind in ("", "1"))
    print(f"{what:<25} right answers {right}  answer 1 {one}")
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" run.py > all.txt 2> errors.txt || { cat errors.txt; exit 1; }
grep 'right answers' all.txt > seen.txt
cat > expected.txt <<'TEXT'
template, list first      right answers 0.0  answer 1 0.5
template, list second     right answers 1.0  answer 1 0.0
name of the column        right answers 1.0  answer 1 0.0
TEXT
diff expected.txt seen.txt
cat seen.txt
