"""What the dataset card says of every dataset: the text of the machines in short, splits, limits, licence, citation."""

from __future__ import annotations

from ..tm import transition

TITLE = "# Arithmetic executed as Turing machines\n"

YOURS = "<!-- caef-data writes what stands between these marks; the rest of this file is yours -->\n"
REBUILT = "This dataset is being rebuilt."

ABOUT = """\
Rows that teach a language model to *execute* arithmetic the way a Turing machine does, one small step at a time,
after the CAEF method ([Executing Arithmetic](https://arxiv.org/abs/2410.07896)). A model that takes every step right
computes with operands of any length, and calls one machine from another as a program calls a function.

{holds}
```python
from datasets import load_dataset

rows = {load}
print(rows[0]["prompt"], rows[0]["completion"], sep="\\n->\\n")
```
"""

FORMAT = """\
## How to read the text

An operand stands on a **tape**, one digit a cell, the units first, a bar before each digit: 120 is `|0|2|1`. A
**head** such as `[HEAD1]` reads the digit on its right; behind the last digit it has nothing left to read. `[C]`
holds a carry, `[COUNT]` a counter, `[OUTPUT]` the result so far, units first as well.

An **entry** is a state line and a command line. This one is of 12 + 9 when the units are done:

```text
{entry}
```

The machine `ADD` is in state `q1`. The 2 of 12 has been read and head 1 reads the 1; all of 9 has been read; the
carry is 1, and so is the output so far. The command is to be carried out next: set the carry to 0, write a 2, move
the output and head 1 to the right, stay in `q1`. That gives the next entry, and to write it is the model's task:

```text
{after}
```

`q0` is the start of a machine. At `qH` it has halted: the result ends the state line, and the command line says `No
command to execute. Halt state.`

**Basic machines** work so on their tapes: `add`, `equal`, `greater_than`, `less_than`, and two helpers, `reflection`
(a number of nines minus another number) and `left_mask` (drops the highest digit). **Composers** (`sub`, `mul`,
`div`) have no moving heads, they call other machines. A composer's prompt has its own entry, then the entry with
which the called machine halted; its completion has its own next entry, then the first entry of the machine to call.
Here `SUB`, at 12 - 7, hands 99 - 7 = 92 on to `ADD`:

```text
prompt:
{prompt}
completion:
{completion}
```
"""

TRAINING = """\
## Training on it

`prompt` and `completion` are the columns that the usual trainers read. Completions carry no end-of-text token: training
adds it. Tokenise the two apart: many vocabularies have tokens that span their border, such as `=E`. In the first of the
method's two stages the prompt is `instruction + prompt` (the instruction describes the machine in words and ends with
an empty line), in the second it is `prompt` alone. Compute the loss on the completion only, and look at the longest
texts in the table below before you set a maximal length: a trainer that cuts rows cuts off the answer.
"""

READING = """\
### Reading them

`step` and `n_steps` hold nulls where they do not fit 64 bits. pandas then makes them float64, and the numpy and torch
formats of the datasets library float32, which is wrong above 2^24: read them as Arrow keeps them
(`pandas.read_parquet(path, dtype_backend="pyarrow")`, `rows.with_format("arrow")`). `len_a` and `len_b` are 16-bit
integers: cast one to 64 bits before they are multiplied. No column names the split: read
`add-one_step/train-*.parquet`, not the whole folder.
"""

SPLITS_TEXT = """\
## Splits

| split | what it holds |
|---|---|
| train | about nine tenths of every equivalence class, that is of all pairs (digits of a, digits of b) |
| test | held out: about one tenth |
| stress | held out: long carries and borrows, all nines, powers of ten and the like; `variant` names the kind |

On which side an expression stands is a function of the task and the two operands, and of nothing else: not of the
seed, the range of lengths or the run. So **no expression of train is one of test or stress**, in this dataset or in
any other with the same version of the split rule, and a + b and b + a (also of `mul` and `equal`) stand on the same
side. Within a split no expression occurs twice. Answers and every step in between are exact.

What is *not* claimed: the guarantee is per task. `sub`, `mul` and `div` call `add` and other machines on operands
that may stand in those machines' own train split. Short operands, close lengths and equal operands are
over-represented in train on purpose. Loops of `mul` and `div` on long operands never end: single steps are there for
all, whole runs for expressions that halt soon.
"""

END = """\
## Licence and citation

Apache-2.0. The method is the paper's, please cite it:

```bibtex
@article{caef2024,
  title   = {Executing Arithmetic: Fine-Tuning Large Language Models as Turing Machines},
  journal = {arXiv preprint arXiv:2410.07896},
  year    = {2024}
}
```
"""


# What caef-data 0.1.0 wrote instead: its cards, if nobody edited them, are known by that and replaced.
FIRST_TEXTS = {
    READING: "",
    TRAINING: """\
## Training on it

`prompt` and `completion` are the columns that the usual trainers read. Completions carry no end-of-text token: the
trainer adds it. In the first of the method's two stages the prompt is `instruction + prompt` (the instruction
describes the machine in words and ends with an empty line), in the second it is `prompt` alone. Compute the loss on
the completion only, and look at the longest texts in the table below before you set a maximal length: a trainer that
cuts rows cuts off the answer.
""",
}

DIALECT_TEXT = {
    "consistent": "Prompts of composers hold what the called machines really emit.",
    "published": "The text of the published scripts, byte for byte; some prompts of `SUB` and `MUL` differ from that.",
}


def format_text() -> str:
    """Return the section on the text, with entries that the machines write."""
    step, call = transition("add", 12, 9, 2), transition("sub", 12, 7, 1)
    return FORMAT.format(
        entry=step.prompt.rstrip("\n"),
        after=step.completion.rstrip("\n"),
        prompt=call.prompt.rstrip("\n"),
        completion=call.completion.rstrip("\n"),
    )
