#!/usr/bin/env bash
# TRL 1.16.0: a pre-tokenised dataset's completion_mask is ignored without a word.
#
# Behaviour: SFTTrainer takes rows of `input_ids` and `completion_mask`. Unless the configuration also says
# completion_only_loss=True, the labels are all of input_ids: the model is trained on the prompt, too. For rows of
# `prompt` and `completion` texts the default is the completion alone. Nothing is printed, training looks the same.
# Expected (guess before the run): a column of that name is a mask of the loss.
# Way round: give `labels`, with -100 where the prompt stands.
#
# Output seen with trl 1.16.0, transformers 5.23.0, torch 2.13.0, datasets 5.2.0:
#     default                    [3, 12, 4, 13, 5, 1]
#     completion_only_loss=True  [-100, -100, -100, -100, 5, 1]
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trl==1.16.0 transformers==5.23.0 torch==2.13.0 datasets==5.2.0
cd "$folder"
cat > run.py <<'PYTHON'
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

words = ["<pad>", "</s>", *"0123456789+="]
core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="<pad>")
sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes))
rows = Dataset.from_list([{"input_ids": [3, 12, 4, 13, 5, 1], "completion_mask": [0, 0, 0, 0, 1, 1]}] * 2)
for name, more in (("default", {}), ("completion_only_loss=True", {"completion_only_loss": True})):
    config = SFTConfig("out", report_to="none", bf16=False, use_cpu=True, **more)
    trainer = SFTTrainer(model, config, train_dataset=rows, processing_class=tokenizer)
    print(f"{name:<26} {trainer.train_dataset[0]['labels']}")
PYTHON
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py 2> errors) || { cat errors; exit 1; }
echo "$found"
wanted='default                    [3, 12, 4, 13, 5, 1]
completion_only_loss=True  [-100, -100, -100, -100, 5, 1]'
[ "$found" = "$wanted" ] || { echo "another output than the one described" >&2; exit 1; }
