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
# Torch's words.
MISMATCH = re.compile(r"size mismatch for ([\w.]+):.*?Size\((\[[^]]*\]).*?Size\((\[[^]]*\])", re.DOTALL)
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


def config_of(base: Path | str) -> Any:
    """Return the configuration of a causal language model; raise ``UserError`` where it is none."""
    with _loading("the base model", base):
        config = AutoConfig.from_pretrained(str(base), trust_remote_code=False, local_files_only=Path(base).is_dir())
        if config.is_encoder_decoder:
            raise _refused("the base model", base, f"is an encoder-decoder ({config.model_type})")
        return config


def without_weights(base: Path | str, dtype: torch.dtype | None = None) -> Any:
    """Return a causal language model whose weights are not there; raise ``UserError`` where it is none."""
    with _loading("the base model", base), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config_of(base), dtype=dtype)


def load_base(base: Path | str, dtype: torch.dtype, device: torch.device) -> Any:
    """Load a causal language model from safetensors.

    Raises:
        UserError: it cannot be loaded, lacks weights, or sees what follows.
        RuntimeError: memory ran out.
    """
    with _loading("the base model", base):
        net, info = AutoModelForCausalLM.from_pretrained(
            str(base),
            config=config_of(base),
            dtype=dtype,
            device_map=None if device.type == "cpu" else str(device),
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            local_files_only=Path(base).is_dir(),
        )
    if missing := info["missing_keys"]:
        raise _refused("the base model", base, f"lacks weights: {quoted(', '.join(sorted(missing)), 200)}")
    net.eval().requires_grad_(False)
    _check_causal(net, "the base model", base)
    return net


def load_adapter(net: Any, name: str, folder: Path) -> Any:
    """Return the base model with an adapter: a tree of its own, which shares the weights that the adapter leaves alone.

    Raises:
        UserError: the adapter is damaged, does not fit the base model, or is of a kind that is not evaluated.
        RuntimeError: memory ran out.
    """
    what = f"the adapter {name}"
    with _loading(what, folder):
        config = _adapter_config(what, folder)
        held = shapes_in(folder / WEIGHTS)
        shapes = {_base_name(key): shape for key, shape in held.items()}
        tree = share(net, _overwritten(net, config, held))
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
        raise _refused(what, folder, f"does not fit the base model: only one of them has {quoted(key, 120)}")
    model.eval()
    _check_causal(tree, what, folder, whole=model)
    return tree


def share(net: Any, own: Collection[int] = ()) -> Any:
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
    fault = ""
    if config.is_prompt_learning or kind in NEVER:
        fault = f"is of kind {kind}: it needs more than the tokens of a row"
    elif config.task_type not in (None, "CAUSAL_LM"):
        fault = f"is trained for {quoted(config.task_type)}, not for CAUSAL_LM"
    elif begun.startswith(LOST):
        fault = f"began as {quoted(begun)}, which cannot be repeated: convert it as peft's guide says"
    elif unknown:
        fault = f"has the setting {quoted(', '.join(unknown))}, which this version of peft does not know"
    if fault:
        raise _refused(what, folder, fault)
    config.inference_mode = True
    return config


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


def _check_causal(net: Any, what: str, where: Path | str, whole: Any = None) -> None:
    """Refuse a model that looks ahead: what it says of a token must be finite, and not depend on those that follow.

    ``whole`` is the same model as peft calls it, which must say the same.
    """
    words = net.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([PROBE], device=net.device) % words
    half = ids.shape[1] // 2
    changed = torch.cat([ids[:, :half], (ids[:, half:] + 1) % words], 1)
    with _loading(what, where), torch.inference_mode():
        first, second = (net(input_ids=tokens, use_cache=False).logits for tokens in (ids, changed))
        called = first if whole is None else whole(input_ids=ids, use_cache=False).logits
    if not all(logits.amax(-1).isfinite().all() for logits in (first, second, called)):
        raise _refused(what, where, "gives logits that are not finite: its weights are damaged, or --dtype too narrow")
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


def _refused(what: str, where: Path | str, fault: str) -> UserError:
    return UserError(
        f"{what} {fault}",
        where=printable_path(where),
        allowed="a causal language model, and adapters trained on it that change its modules, such as LoRA",
        next_step="name the base model that adapters were trained on, or other adapters",
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
    """Refuse whatever a library raises at a damaged folder, but for lack of memory, which is nobody's fault."""
    try:
        with quiet():
            yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        if clash := MISMATCH.search(str(error)):
            held = read_json(Path(where, CONFIG)) if Path(where, CONFIG).exists() else {}
            fault = f"does not fit the base model: {clash[1]} has the shape {clash[2]}, here it is {clash[3]}"
            fault += f"; it was trained on {quoted(held.get('base_model_name_or_path'), 200)}"
            raise _refused(what, where, fault) from error
        reason = str(error).strip().split("\n")[0]
        reason = f"it lacks {reason}" if isinstance(error, KeyError) else reason
        raise UserError(f"{what} cannot be loaded: {quoted(reason, 300)}", where=printable_path(where)) from error


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a failure of torch means that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def no_room(when: str, device: torch.device, otherwise: str) -> UserError:
    """Return the error for memory that ran out."""
    return UserError(
        f"memory ran out {when}", where=str(device), next_step=f"--dtype bfloat16, a smaller model, {otherwise}"
    )


def unless_full(work: Callable[..., T], *args: Any) -> T | None:
    """Return what work gives, which is not None; None where memory ran out: nothing holds what it was computing."""
    try:
        return work(*args)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    return None
