"""The ground truth of all verdicts: transformers' and peft's own greedy decoding, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def load_plain(base: Path | str, adapter: Path | str | None, rows: int, dtype: Any = None) -> Any:
    """Load a model as users of peft do.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter; None for the base model alone.
        rows: tokens of the tokenizer: embeddings grow to hold them, as peft's AutoPeftModel lets them.
        dtype: of the weights; float32 by default.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=dtype or torch.float32)
    if rows > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
    return model.eval()


def plain_greedy(*settings: Any, **options: Any) -> list[str]:
    """Return what greedy decoding gives for each prompt alone: its text up to the end token; see ``plain_answers``."""
    return [text for text, _ in plain_answers(*settings, **options)]


def plain_answers(
    base_folder: Path | str,
    adapter_folder: Path | str | None,
    prompts: Sequence[str],
    max_new_tokens: int,
    tokenizer_folder: Path | str | None = None,
    dtype: Any = None,
    device: str = "cpu",
) -> list[tuple[str, bool]]:
    """Return what greedy decoding gives for each prompt alone: its text up to the end token, and whether that came.

    A fresh model answers each prompt that may change the model's state (rope factors that grow and stay).

    Args:
        base_folder: the base model.
        adapter_folder: the adapter; None for the base model alone.
        prompts: what the model reads.
        max_new_tokens: tokens to decode, at most; a text without an end token is whatever came so far.
        tokenizer_folder: by default the adapter's folder where it holds a tokenizer, else the base model's.
        dtype: of the weights; float32 by default.
        device: where the model computes.
    """
    import torch
    from transformers import AutoTokenizer, GenerationConfig

    own = adapter_folder is not None and (Path(adapter_folder) / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder or (adapter_folder if own else base_folder)))
    end = tokenizer.eos_token_id
    settings = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=end)
    model, answers = None, []
    for prompt in prompts:
        if model is None or _has_growing_rope(model):
            model = load_plain(base_folder, adapter_folder, len(tokenizer), dtype).to(device)
            getattr(model, "base_model", model).generation_config = settings
            model.generation_config = settings
        given = tokenizer(prompt)["input_ids"]
        while given[-1] == end:  # some tokenizers end every text; who asks does not
            given.pop()
        ids = torch.tensor([given], device=device)
        with torch.inference_mode():
            found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        answer = found[0, len(given) :].tolist()
        ended = end in answer
        answer = answer[: answer.index(end)] if ended else answer
        before, both = (tokenizer.decode(one, clean_up_tokenization_spaces=False) for one in (given, given + answer))
        assert both.startswith(before), "the prompt's text changes when something follows it"
        answers.append((both[len(before) :], ended))
    return answers


def _has_growing_rope(model: Any) -> bool:
    return any("dynamic" in str(getattr(module, "rope_type", "")) for module in model.modules())
