"""Base models and adapters into memory, with transformers and peft themselves: safetensors, and no code of their own.

Every adapter gets a tree of modules of its own, whose weights are the base model's as far as the adapter leaves them
alone. So adapters cannot influence each other, and the base model stays what it was.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftConfig, PeftModel
from safetensors import safe_open
from torch.nn import Parameter
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from ...errors import UserError, printable_path, quoted
from ..files import CONFIG, WEIGHTS, read_json, shapes_in

T = TypeVar("T")
PROBE = (5, 7, 11, 3, 2, 13, 17, 19)  # tokens, modulo the vocabulary, that ``_check_causal`` shows a model
SAME, ABOUT = 1e-4, 0.02  # logits are equal that differ so much of the largest one: in float32, in half precision
# Kinds of adapters that peft calls with more than tokens, beside those that put virtual tokens before the prompt.
NEVER = {"ADAPTION_PROMPT", "POLY", "SHADOW", "XLORA", "aLoRA"}
# How a LoRA is begun: these change the base model's weights, which peft repeats when it loads the adapter ...
CHANGING = ("olora", "pissa", "loftq")
# ... and these begin otherwise each time, or from data that are not there.
LOST = ("pissa_niter", "corda")
# Beside its own error, how torch says that memory ran out: CUDA's and its libraries' own words come through.
OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)


def load_base(base: Path | str, dtype: torch.dtype, device: torch.device, attention: str | None) -> Any:
    """Load a causal language model from safetensors.

    Raises:
        UserError: it cannot be loaded, lacks weights, holds NaN or infinity, or sees what follows.
        RuntimeError: memory ran out.
    """
    options = {"trust_remote_code": False, "local_files_only": Path(base).is_dir()}
    with _loading("the base model", base):
        config = AutoConfig.from_pretrained(str(base), **options)
        if config.is_encoder_decoder:
            raise _refused("the base model", base, f"is an encoder-decoder ({config.model_type})")
        net, info = AutoModelForCausalLM.from_pretrained(
            str(base),
            dtype=dtype,
            device_map=None if device.type == "cpu" else str(device),
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    if missing := info["missing_keys"]:
        raise _refused("the base model", base, f"lacks weights: {quoted(', '.join(sorted(missing)), 200)}")
    net.eval().requires_grad_(False)
    _check_finite(net, "the base model", base)
    _check_causal(net, "the base model", base)
    return net


def load_adapter(net: Any, name: str, folder: Path) -> Any:
    """Return the base model with an adapter: a tree of its own, which shares the weights that the adapter leaves alone.

    Args:
        net: the base model, which stays as it is.
        name: the adapter's name, for messages.
        folder: what peft's ``save_pretrained`` wrote.

    Raises:
        UserError: the adapter is damaged, does not fit the base model, or is of a kind that is not evaluated.
        RuntimeError: memory ran out.
    """
    what = f"the adapter {name}"
    with _loading(what, folder):
        config = _adapter_config(what, folder)
        held = shapes_in(folder / WEIGHTS)
        shapes = {_base_name(key): shape for key, shape in held.items()}
        tree = _share(net, _overwritten(net, config, held))
        for embedding in (tree.get_input_embeddings(), tree.get_output_embeddings()):
            place = next((place for place, module in tree.named_modules() if module is embedding), None)
            words, *_ = shapes.get(f"{place}.weight", embedding.weight.shape)
            if words != embedding.weight.shape[0]:  # the adapter's vocabulary has grown
                tree.resize_token_embeddings(words, mean_resizing=False)
        kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
        # Weights in the base model's dtype: float32 ones would turn every activation to float32 and back.
        model = kind(tree, config, autocast_adapter_dtype=False)
        loaded = model.load_adapter(str(folder), "default", torch_device=str(net.device), autocast_adapter_dtype=False)
    for key in [*loaded.missing_keys, *_not_used(folder / WEIGHTS, loaded.unexpected_keys)]:
        next_step = "name the base model that it was trained on with --base-model"
        told = f"does not fit the base model: only one of them has {quoted(key, 120)}"
        raise _refused(what, folder, told, next_step)
    model.eval()
    _check_finite(tree, what, folder, known={weight.data_ptr() for weight in net.parameters()})
    _check_causal(tree, what, folder, whole=model)
    return tree


def _share(net: Any, own: Collection[int]) -> Any:
    """Return a copy of a model that shares its weights and buffers; ``own``: ids of weights that are copied, too."""
    memo: dict[int, Any] = {id(buffer): buffer for buffer in net.buffers()}
    for weight in net.parameters():
        if id(weight) not in own:
            # A parameter of its own, of the same numbers: libraries give one other numbers by setting its data.
            plain = type(weight) is Parameter
            memo[id(weight)] = Parameter(weight.detach(), requires_grad=False) if plain else weight
    return copy.deepcopy(net, memo)


def _adapter_config(what: str, folder: Path) -> Any:
    """Return an adapter's configuration, if it is of a kind that is evaluated."""
    config = PeftConfig.from_pretrained(str(folder))
    begun = str(getattr(config, "init_lora_weights", None) or "").lower()
    kind = "aLoRA" if getattr(config, "alora_invocation_tokens", None) else getattr(config.peft_type, "value", "?")
    settings = {name for name, value in read_json(folder / CONFIG).items() if value} - {"runtime_config"}
    unknown = sorted(name for name in settings if not hasattr(config, name))
    next_step = "train a LoRA, or another adapter that changes modules of the model alone"
    if config.is_prompt_learning:
        odd = f"is of kind {kind}: it puts virtual tokens before the prompt"
    elif kind in NEVER:
        odd = f"is of kind {kind}: it needs more than the tokens of prompt and answer"
    elif config.task_type not in (None, "CAUSAL_LM"):
        odd = f"is trained for {quoted(config.task_type)}, not to continue a text"
    elif begun.startswith(LOST):
        odd = f"began as {quoted(begun)}, which cannot be repeated: the base model that it belongs to is lost"
        next_step = "save it with path_initial_model_for_weight_conversion, as peft's guide to its kind says"
    elif unknown:
        odd = f"has the setting {quoted(unknown[0])}, which this version of peft does not know"
        next_step = "pip install -U peft"
    else:
        config.inference_mode = True
        return config
    raise _refused(what, folder, odd, next_step)


def _overwritten(net: Any, config: Any, held: Collection[str]) -> set[int]:
    """Return the ids of the base model's weights that loading an adapter writes to: each tree needs its own."""
    if str(getattr(config, "init_lora_weights", None)).lower().startswith(CHANGING):
        return {id(weight) for weight in net.parameters()}
    weights = dict(net.named_parameters(remove_duplicate=False))
    saved = tuple(f".{module}." for module in getattr(config, "modules_to_save", None) or ())
    own = set()
    for key in held:
        name = _base_name(key)
        # A whole module is loaded beside the base model's own, which the file may hold, too.
        beside = ".original_module." not in key and any(module in f".{name}" for module in saved)
        if name in weights and not beside:
            own.add(id(weights[name]))
    return own


def _not_used(path: Path, keys: Collection[str]) -> list[str]:
    """Return those of an adapter's weights that found no place, and do not stand in its file twice.

    Of embeddings beside a grown vocabulary, peft writes some a second time by another name.
    """
    if not keys:
        return []
    with safe_open(path, "pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    used = [held[name] for name in held if name not in keys]
    return [key for key in keys if key not in held or not any(torch.equal(held[key], other) for other in used)]


def _base_name(key: str) -> str:
    """Return what a weight of an adapter's file is called in the base model, if it is one of its weights."""
    return re.sub(r"\.(base_layer|original_module|token_adapter)(?=\.)", "", key.removeprefix("base_model.model."))


def _check_finite(net: Any, what: str, where: Path | str, known: Collection[int] = ()) -> None:
    """Refuse weights that hold NaN or infinity; ``known``: addresses of weights that have been looked at before."""
    for name, weight in net.named_parameters():
        if weight.data_ptr() in known or not weight.is_floating_point() or not weight.numel():
            continue
        wide = weight if weight.element_size() > 1 else weight.float()
        if not all(bound.isfinite() for bound in torch.aminmax(wide)):
            next_step = "its training went wrong: take an earlier checkpoint of it, or --dtype float32"
            raise _refused(what, where, f"holds NaN or infinity in the weight {quoted(name, 120)}", next_step)


def _check_causal(net: Any, what: str, where: Path | str, whole: Any = None) -> None:
    """Refuse a model that looks ahead: what it says of a token must not depend on those that follow.

    ``whole`` is the same model as peft calls it, which must say the same.
    """
    words = net.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([PROBE], device=net.device) % words
    half = ids.shape[1] // 2
    changed = torch.cat([ids[:, :half], (ids[:, half:] + 1) % words], 1)
    with _loading(what, where), torch.inference_mode():
        first, second = (net(input_ids=tokens, use_cache=False).logits for tokens in (ids, changed))
        called = first if whole is None else whole(input_ids=ids, use_cache=False).logits
    exact = net.dtype in (torch.float32, torch.float64)
    least = (SAME if exact else ABOUT) * first.abs().max()
    # In half precision, experts that later tokens choose change the last digits of earlier ones; attention that says
    # it looks ahead gets no such allowance.
    ahead = any(getattr(module, "is_causal", None) is False for module in net.modules())
    text_alone = net.config.get_text_config() is net.config  # there are no images, which are looked at whole
    allowed = 0.0 if ahead and text_alone and not exact else least
    if (first - second)[:, :half].abs().max() > allowed:
        told = f"what it says of a token depends on those that follow ({net.config.model_type}), it is not causal"
        raise _refused(what, where, f"looks ahead: {told}")
    if called.shape != first.shape or (called - first).abs().max() > least:
        raise _refused(what, where, "is more than changed modules: peft itself gives it other inputs")


def _refused(what: str, where: Path | str, odd: str, next_step: str | None = None) -> UserError:
    return UserError(
        f"{what} {odd}",
        where=printable_path(where),
        allowed="causal language models, and adapters that change their modules, such as LoRA",
        next_step=next_step or "name another one",
    )


def weight_sums(net: Any) -> list[float]:
    """Return the sum of each weight, which tells whether one was written to."""
    sums: list[float] = torch.stack([weight.sum(dtype=torch.float64) for weight in net.parameters()]).tolist()
    return sums


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and advice of the libraries: what matters is raised."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _loading(what: str, where: Path | str) -> Iterator[None]:
    """Refuse whatever a library raises at a damaged folder, or at a model that needs more than tokens.

    Raises:
        UserError: the libraries raise something.
        RuntimeError: memory ran out, which is nobody's fault.
    """
    try:
        with quiet():
            yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        reason = str(error).strip().split("\n")[0]
        reason = f"it lacks {reason}" if isinstance(error, KeyError) else reason
        raise UserError(f"{what} cannot be loaded: {quoted(reason, 300)}", where=printable_path(where)) from error


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a failure of torch means that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def unless_full(work: Callable[..., T], *args: Any) -> T | None:
    """Return what work gives, which is not None; None where memory ran out: nothing holds what it was computing."""
    try:
        return work(*args)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    return None
