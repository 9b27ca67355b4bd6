"""Prints what LLaMA-Factory's own code trains on: run as a program with the folder of its package and a JSON request.

It wants an older transformers, packages for sound, and a settings library; none of these matters to rows of text.
"""

import json
import os
import sys
import types
from typing import Any

os.environ["DISABLE_VERSION_CHECK"] = "1"  # its version range ends before the library that evaluates


def rows(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tokens and labels of a dataset, by its whole way from files to training examples."""
    from llamafactory.data.loader import get_dataset
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments
    from transformers import AutoTokenizer, TrainingArguments

    data = DataArguments(**request["data"])
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    template = get_template_and_fix_tokenizer(tokenizer, data)
    training = TrainingArguments(output_dir=request["out"], report_to="none", use_cpu=True)
    training.predict_with_generate = False
    model = types.SimpleNamespace(cache_dir=request["out"], hf_hub_token=None)
    found = get_dataset(template, model, data, training, "sft", tokenizer)["train_dataset"]
    return [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in found]


def turns(request: dict[str, Any]) -> list[Any]:
    """Return the tokens of a prompt and its answer in a template, and save the tokenizer as it trains with."""
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    template = get_template_and_fix_tokenizer(tokenizer, DataArguments(template=request["template"]))
    tokenizer.save_pretrained(request["out"])
    contents = zip(("user", "assistant"), request["texts"], strict=True)
    return list(template.encode_oneturn(tokenizer, [{"role": role, "content": text} for role, text in contents]))


if __name__ == "__main__":
    import peft  # noqa: F401  (the libraries look for what is installed before the stand-ins are there)
    import transformers  # noqa: F401
    import trl  # noqa: F401

    for name in ("torchaudio", "omegaconf"):
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
    sys.modules["omegaconf"].OmegaConf = None  # type: ignore[attr-defined]
    folder, asked = sys.argv[1:]
    sys.path.insert(0, folder)
    wanted = json.loads(asked)
    print(json.dumps((rows if "data" in wanted else turns)(wanted)))
