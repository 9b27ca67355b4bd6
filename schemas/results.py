"""The columns of the result tables that an evaluation leaves, each with its type, meaning and unit.

No name is a reserved word of SQL.

``results/<table>/run_id=<16 hex digits>/<part>.parquet``: the run's id is the name of the folder, and a column to every
reader that knows Hive partitions. Times are UTC without a zone of their own, so that SQL needs no time zone data.
"""

from functools import cache

import pyarrow as pa

from .rows import Columns, described

_TEXT, _WHOLE, _INT, _SHORT, _REAL, _YES = pa.string(), pa.int64(), pa.int32(), pa.int16(), pa.float64(), pa.bool_()
_NAMES, _TIME = pa.list_(pa.string()), pa.timestamp("us")

RUN_ID = (_TEXT, "The evaluation, 16 hexadecimal digits: the same settings on the same data have the same.")
CLASS: Columns = {
    "task": (_TEXT, "The task: add, sub, mul, div, equal, greater_than, less_than, reflection, left_mask or your own."),
    "mode": (
        _TEXT,
        "What a problem is: one_step, executor, aligner_in, aligner_out, process or slips; raw for the baseline.",
    ),
    "split": (_TEXT, "train, test or stress."),
    "dialect": (_TEXT, "Dialect of the texts: consistent or published."),
    "variant": (_TEXT, "Part of the equivalence class (len_a, len_b): any, equal, greater, ...; the family in stress."),
    "len_a": (_SHORT, "Number of digits of a."),
    "len_b": (_SHORT, "Number of digits of b; 0 for a task with one operand."),
}
RUNS: Columns = {
    "name": (_TEXT, "The name that --name gave the run; of runs with one name, the newest is meant; null without."),
    "started": (_TIME, "When the evaluation began, UTC."),
    "finished": (_TIME, "When its tables were complete, UTC; null while they are not."),
    "status": (_TEXT, "finished, or unfinished: still going on, or stopped; the same command resumes it."),
    "command": (_TEXT, "The command that makes the run again; what a training asks is gone when it ends."),
    "base_model": (_TEXT, "The base model: a folder, or a name on the Hub."),
    "base_sha256": (_TEXT, "Hash of the base model's configuration, tokenizer and, unless a server has them, weights."),
    "adapters": (pa.map_(pa.string(), pa.string()), "Adapter, such as executors/add, to the sha256 of its content."),
    "data": (_TEXT, "The dataset folder that the problems were read from."),
    "data_identity": (_TEXT, "The identity of the dataset in it: caef-data info."),
    "tasks": (_NAMES, "The tasks evaluated."),
    "modes": (_NAMES, "The modes evaluated."),
    "splits": (_NAMES, "The splits evaluated."),
    "strategy": (_TEXT, "How answers were judged: verify (forward pass), generate (decoding), rollout (in turn)."),
    "template": (_TEXT, "The text around each prompt: chat, or a text with {prompt}; null for the bare prompt."),
    "stage": (_TEXT, "first: the machine's instruction stood before each prompt; else the prompt was alone."),
    "backend": (_TEXT, "What answered: transformers, openai or oracle."),
    "baseline": (_YES, "The base model alone answered raw questions, without adapters."),
    "dialect": (_TEXT, "Dialect of the dataset's one-step rows; runs are always consistent."),
    "device": (_TEXT, "What computed: cpu, cuda, an address."),
    "dtype": (_TEXT, "Number format of the weights: float32, bfloat16; null where unknown."),
    "joined": (_YES, "Adapters were asked as training on prompt and completion as one text asks: --joined."),
    "merged_borders": (_WHOLE, "Calls whose prompt and answer, as one text, share a token; null until finished."),
    "near_tie_rule": (_TEXT, "alone: calls with a near tie were decoded alone; count: their batch may have decided."),
    "near_tie_below": (_REAL, "A token that leads the next one by less than this, in logits, is a near tie."),
    "near_ties": (_WHOLE, "Number of calls with a near tie; null until finished."),
    "batch_tokens": (_WHOLE, "Tokens that a batch may hold; null where the backend batches by itself."),
    "max_problems": (_WHOLE, "--limit: at most so many expressions of each task; null for all."),
    "rules": (_WHOLE, "Version of the rules of judging and choosing problems; null for caef-data 0.1.0, whose is 1."),
    "caef_data": (_TEXT, "Version of caef-data."),
    "torch": (_TEXT, "Version of torch; null where it was not used."),
    "transformers": (_TEXT, "Version of transformers; null where it was not used."),
    "peft": (_TEXT, "Version of peft; null where it was not used."),
    "problems": (_WHOLE, "Number of problems."),
    "calls": (_WHOLE, "Number of model calls, each counted once: the rows of the table calls."),
    "calls_repeated": (_WHOLE, "Number of calls that were saved: an earlier problem makes the same one."),
    "tokens": (_WHOLE, "Tokens of prompts, completions and ends that were evaluated."),
    "seconds": (
        _REAL,
        "Seconds of evaluation, without loading the model; of all sessions that were not killed.",
    ),
    "calls_per_second": (_REAL, "Calls a second; null until finished."),
    "tokens_per_second": (_REAL, "Tokens a second; null until finished."),
}
CALLS: Columns = {
    "call": (_WHOLE, "Number of the call in its run; each distinct call is made once."),
    "key": (_TEXT, "128-bit hash of adapter, prompt and right answer: the same in every run and stage."),
    "adapter": (_TEXT, "The adapter asked, such as executors/add or aligners/sub; empty for the base model alone."),
    "task": (_TEXT, "The machine or task that the adapter is for: a run of sub makes calls of reflection, too."),
    "kind": (_TEXT, "executor, aligner_in, aligner_out or raw."),
    "state": (_TEXT, "The machine's state in the prompt; null for aligners and raw questions."),
    "correct": (_YES, "Greedy decoding gives exactly the right answer and ends; a forward pass tells unless decoded."),
    "tokens": (_INT, "Tokens of prompt, right answer and end; null where unknown."),
    "completion_tokens": (_INT, "Tokens of the right answer and end; null where unknown."),
    "first_wrong_token": (_INT, "0-based index of the answer's first token not given; null if correct or unknown."),
    "margin": (
        pa.float32(),
        "Smallest lead, in logits, of a right token over the best other one, up to the first wrong one; negative if"
        " wrong there; null where unknown.",
    ),
    "decoded": (_YES, "The answer was decoded; false where one forward pass was enough."),
    "near_tie": (_YES, "A token leads the next one by less than near_tie_below of the table runs."),
    "text": (_TEXT, "What the model answered; null if correct or not decoded."),
    "prompt": (_TEXT, "The prompt, without instruction and template; null if correct, to keep the table small."),
    "expected": (_TEXT, "The right answer; null if correct."),
}
CLASS_ACCURACY: Columns = {
    **CLASS,
    "n": (_WHOLE, "Number of problems evaluated; 0 where the dataset has the class and the run did not reach it."),
    "correct": (_WHOLE, "Number of problems with every call right."),
    "accuracy": (_REAL, "correct / n; null where n is 0."),
    "low": (_REAL, "Lower end of the accuracy's 95% Wilson interval; null where n is 0."),
    "high": (_REAL, "Upper end of it; null where n is 0."),
    "final_correct": (_WHOLE, "Problems with the final answer right, even if a step was not; null without rollout."),
    "correct_stripped": (
        _WHOLE,
        "Problems right up to white space around answers: the published evaluation counts so.",
    ),
    "near_ties": (_WHOLE, "Number of problems with a near tie in one of their calls."),
}
OPERANDS: Columns = {
    "a": (_TEXT, "First operand, a decimal string."),
    "b": (_TEXT, "Second operand, a decimal string; null for a task with one operand."),
}
PROBLEMS: Columns = {
    **CLASS,
    **OPERANDS,
    "asked_step": (
        _WHOLE,
        "0-based index of a one_step or slips problem's transition; null in other modes, or from 2^63.",
    ),
    "num_calls": (_WHOLE, "Number of calls of the problem."),
    "correct": (_YES, "Every call of the problem is right."),
    "correct_stripped": (_YES, "Every call is right up to white space at both ends of answers."),
    "first_wrong_step": (_WHOLE, "0-based index of the first failing call among the problem's calls; null if correct."),
}
FAILURES: Columns = {
    **CLASS,
    **OPERANDS,
    "step": (_WHOLE, "0-based index of the first failing call among the problem's calls, nested ones included."),
    "num_calls": (_WHOLE, "Number of calls of the problem."),
    "call": (_WHOLE, "The failing call's number in the table calls."),
    "adapter": (_TEXT, "The adapter asked."),
    "kind": (_TEXT, "executor, aligner_in, aligner_out or raw."),
    "state": (_TEXT, "The machine's state in the prompt; null for aligners and raw questions."),
    "prompt": (_TEXT, "The prompt, without instruction and template."),
    "expected": (_TEXT, "The right answer."),
    "text": (_TEXT, "What the model answered."),
    "first_wrong_token": (_INT, "0-based index of the right answer's first token that the model did not give."),
    "first_wrong_char": (_INT, "0-based index of the first character in which text and expected differ."),
}
RESULTS: dict[str, Columns] = {
    "runs": {"run_id": RUN_ID, **RUNS},
    "calls": {"run_id": RUN_ID, **CALLS},
    "class_accuracy": {"run_id": RUN_ID, **CLASS_ACCURACY},
    "problems": {"run_id": RUN_ID, **PROBLEMS},
    "failures": {"run_id": RUN_ID, **FAILURES},
}
RESULT_TEXT = {
    "runs": "Each row is one evaluation: what was evaluated, on what, and how fast.",
    "calls": "Each row is one distinct model call: right or wrong, and by how much.",
    "class_accuracy": "Each row is one class of a task, mode and split: how many of its problems are right.",
    "problems": "Each row is one problem of a run, right or wrong: two runs are compared problem by problem.",
    "failures": "Each row is one failed problem, with its first failing call.",
}


@cache
def result_schema(table: str) -> pa.Schema:
    """Return the Arrow schema of a result table; every field carries its description as metadata.

    Raises:
        KeyError: there is no such table.
    """
    return described(RESULTS[table])


def part_schema(table: str) -> pa.Schema:
    """Return the schema of a result table's files: the run's id is in the folder's name instead."""
    return result_schema(table).remove(0)
