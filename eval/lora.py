"""One LoRA adapter on disk: what is wrong with it is found before any of its weights reach a model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, clip
from ..pipelines.folder import shown
from .patterns import ALLOWED, cost
from .weights import Tensor, check_finite, check_inside, read_header, read_json, readable, sha256_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
MAX_RANK = 4096
MAX_STEPS = 4 * 10**9  # to look for a configuration's patterns in the names of all modules: minutes, at worst
MODULES, LENGTH = 1000, 64  # what a large base model has of them, and how long their names are
MAX_TEXT, COMPILED_AGAIN = 500_000, 20  # characters of all patterns; steps a character, to compile one
COMPILED, PLAIN = 2000, 20  # steps that a pattern takes beside its search, and those of a name
MAX_LAYERS = 4096
NAME = re.compile(r"[\w.-]+")
LISTS = ("target_modules", "exclude_modules", "modules_to_save")
# What peft makes of the keys of rank_pattern and alpha_pattern, and of layers_pattern.
KEY, LAYER = r"(.*\.)?({})$", r"(?:^|.*?\.){}\.\d+\."
PREFIX = "base_model.model."  # before the name of a module of the base model
SUFFIXES = {  # -> part; B times A, (out, rank) times (rank, in), changes a module; those of embeddings lie turned
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "B",
    ".lora_embedding_B": "A",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}
# Settings that a LoRA has, which only adds to the base model, so that adapters can be switched; the first is usual.
CHOICES: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none", None),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva", None),  # others change the base model's weights
}
# Settings that must not be made: they name code to import, or make something else of a LoRA.
UNSET: tuple[str, ...] = ("auto_mapping", "auto_map", "megatron_config", "layer_replication", "lora_bias")
UNSET += ("alora_invocation_tokens", "trainable_token_indices", "target_parameters", "use_qalora", "use_bdlora")
UNSET += ("arrow_config", "kasa_config", "velora_config", "monteclora_config")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Adapter:
    """A LoRA whose files have been checked.

    Args:
        path: its folder.
        sha256: hash of its configuration and weights.
        rank: its rank.
        targets: the names of the modules it changes, or one pattern.
        base: the base model that its configuration names; None if it names none.
        revision: the version of the base model that its configuration names, if any.
        config: its configuration.
        weights: what its weights file holds.
    """

    path: Path
    sha256: str
    rank: int
    targets: tuple[str, ...]
    base: str | None
    revision: str | None
    config: Mapping[str, Any] = field(repr=False)
    weights: Mapping[str, Tensor] = field(repr=False)


def read_adapter(path: Path, root: Path) -> Adapter:
    """Check an adapter's configuration and weights; return it.

    Args:
        path: its folder.
        root: the checkpoint folder, which no file may lie outside of.

    Raises:
        UserError: a file is missing, damaged or of a kind that is not read, or the two contradict each other.
    """
    _check_files(path)
    for name in (CONFIG, WEIGHTS):
        check_inside(path / name, root)
    config = read_json(path / CONFIG)
    rank, targets = _check_config(config, path / CONFIG)
    weights = read_header(path / WEIGHTS)
    _check_patterns(config, weights, path / CONFIG)
    check_finite(path / WEIGHTS, weights)
    base, revision = (config.get(name) or None for name in ("base_model_name_or_path", "revision"))
    sha256 = hashlib.sha256("".join(sha256_of(path / name) for name in (CONFIG, WEIGHTS)).encode()).hexdigest()
    adapter = Adapter(path, sha256, rank, targets, base, revision, config, weights)
    _check_names(adapter)
    return adapter


def _check_files(path: Path) -> None:
    with readable(path):
        held = sorted(entry.name for entry in path.iterdir())
    pickles = [name for name in held if name.endswith(PICKLES)]
    if WEIGHTS not in held and pickles:
        raise UserError(
            f"{shown(path.name)} holds {clip(pickles[0])}, which is not read: unpickling a file runs what is in it",
            where=shown(path),
            allowed=WEIGHTS,
            next_step="load it where you trust it, and save it again: model.save_pretrained(folder)",
        )
    for name in (CONFIG, WEIGHTS):
        if name not in held:
            below = [entry for entry in held if (path / entry / CONFIG).is_file()]
            raise UserError(
                f"there is no {name} in {shown(path.name)}{', which is empty' * (not held)}",
                where=shown(path),
                allowed=f"{CONFIG} and {WEIGHTS}, as peft's save_pretrained writes them",
                next_step=f"move up what is in {clip(below[-1])}" if below else "remove the folder, or put both there",
            )


def _check_config(config: Mapping[str, Any], path: Path) -> tuple[int, tuple[str, ...]]:
    """Return rank and targets of a plain LoRA."""
    for name, choices in CHOICES.items():
        value = config.get(name, choices[0] if name != "peft_type" else None)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise _refuse(name, config, path, ", ".join(str(choice) for choice in choices if choice is not None))
    for name in UNSET:
        if config.get(name):
            allowed = "a plain LoRA without this setting; code that a configuration names is never run"
            raise _refuse(name, config, path, allowed)
    for name, (default, test, allowed) in RULES.items():
        if not test(config.get(name, default)):
            raise _refuse(name, config, path, allowed)
    targets = config["target_modules"]
    return config["r"], (targets,) if isinstance(targets, str) else tuple(sorted(targets))


def _refuse(name: str, config: Mapping[str, Any], path: Path, allowed: str) -> UserError:
    return UserError(f"{name} of this adapter is {clip(config.get(name))}", where=shown(path), allowed=allowed)


def _check_patterns(config: Mapping[str, Any], weights: Collection[str], path: Path) -> None:
    """Refuse patterns that it could take for ever to look for in the names of all modules."""
    length = max([LENGTH, *(len(name.partition(".lora_")[0].removeprefix(PREFIX)) for name in weights)])
    steps: dict[str, int] = {}
    patterns = list(_patterns(config))
    # Python keeps some hundred compiled patterns; of more than these, each is compiled again for every module.
    again = COMPILED_AGAIN if len(patterns) > 250 else 0
    if sum(len(pattern) for pattern, _ in patterns) > MAX_TEXT:
        raise UserError(
            f"this adapter has {len(patterns):,} patterns, of more than {MAX_TEXT:,} characters together",
            where=shown(path),
            allowed=ALLOWED,
        )
    for pattern, whole in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError):
            raise UserError(f"{clip(pattern)} is no regular expression", where=shown(path)) from None
        try:
            steps[pattern] = steps.get(pattern, 0) + cost(whole, length) + COMPILED + again * len(pattern)
        except ValueError as error:
            what = f"looking for {clip(pattern)} could take for ever: {error}"
            raise UserError(what, where=shown(path), allowed=ALLOWED) from None
    for names in (config.get(name) for name in LISTS):
        steps |= {name: PLAIN for name in names if name not in steps} if isinstance(names, list) else {}
    if sum(steps.values()) * max(MODULES, len(weights) // 2) > MAX_STEPS:
        most = clip(max(steps, key=lambda pattern: steps[pattern]))
        what = f"looking for {most}{f' and {len(steps) - 1:,} others' * (len(steps) > 1)} could take for ever"
        raise UserError(what, where=shown(path), allowed=ALLOWED, next_step='name the modules: ["q_proj", ...]')


def _patterns(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the configuration's regular expressions: each as it stands there, and within the one that peft makes."""
    for name in ("target_modules", "exclude_modules"):
        if isinstance(config.get(name), str):
            yield config[name], config[name]
    for name in ("rank_pattern", "alpha_pattern"):
        yield from ((pattern, KEY.format(pattern)) for pattern in config.get(name) or ())
    layers = config.get("layers_pattern") or ()
    yield from ((one, LAYER.format(one)) for one in ([layers] if isinstance(layers, str) else layers))


def _is_rank(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_RANK


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e12  # type: ignore[arg-type]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


def _is_either(value: object) -> bool:
    return _is_text(value) or _is_texts(value)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and NAME.fullmatch(one) for one in value)


def _are_layers(value: object) -> bool:
    layers = value if isinstance(value, list) else [value]
    return len(layers) <= MAX_LAYERS and all(type(one) is int for one in layers)


def _are_ranks(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_rank, value.values()))


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _or_null(test: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or test(value)


# Setting -> what it is where the configuration leaves it out, whether a value makes sense, and which do.
RULES: dict[str, tuple[object, Callable[[object], bool], str]] = {
    "r": (None, _is_rank, f"a rank of 1 to {MAX_RANK:,}"),
    "lora_alpha": (8, _is_number, "a number"),
    "target_modules": (None, lambda value: bool(value) and _is_either(value), "names of modules"),
    "exclude_modules": (None, _or_null(_is_either), "names of modules"),
    "modules_to_save": (None, _or_null(_are_names), "names of modules"),
    "rank_pattern": (None, _or_null(_are_ranks), "names of modules, each with a rank"),
    "alpha_pattern": (None, _or_null(_are_numbers), "names of modules, each with a number"),
    "layers_pattern": (None, _or_null(_is_either), "the name of the list of layers"),
    "layers_to_transform": (None, _or_null(_are_layers), f"up to {MAX_LAYERS:,} numbers of layers"),
    "base_model_name_or_path": (None, _or_null(_is_text), "a folder, or a name on the Hub"),
    "revision": (None, _or_null(_is_text), "a version of the base model"),
}


def _targeted(config: Mapping[str, Any], module: str) -> bool:
    """Tell whether a module is one that the configuration names, as peft sees it."""
    targets = config["target_modules"]
    if isinstance(targets, str):
        return targets.lower() == "all-linear" or re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _modules(adapter: Adapter) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of the adapter's weights by module and part: A, B, magnitude; ``weight`` of a whole one.

    Raises:
        UserError: a weight is none of these.
    """
    saved = tuple(adapter.config.get("modules_to_save") or ())
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in adapter.weights.items():
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
        known = name.startswith(PREFIX) and name.isprintable()
        if suffix is not None and known:
            module, part, shape = name[len(PREFIX) : -len(suffix)], SUFFIXES[suffix], tensor.shape
            shape = shape[::-1] if "embedding" in suffix else shape
        else:
            (module, _, part), shape = name.removeprefix(PREFIX).rpartition("."), tensor.shape
            if not known or part not in ("weight", "bias") or not _is_one_of(module, saved):
                raise _misfit(adapter, f"holds {clip(name, 120)}, which belongs to no LoRA of its configuration")
        found.setdefault(module, {})[part] = shape
    return found


def _is_one_of(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _check_names(adapter: Adapter) -> None:
    """Check that weights and configuration speak of the same modules and ranks."""
    modules = {module: parts for module, parts in _modules(adapter).items() if "weight" not in parts}
    ranks = [(re.compile(KEY.format(key)), rank) for key, rank in (adapter.config.get("rank_pattern") or {}).items()]
    wanted = {"A", "B", "magnitude"} if adapter.config.get("use_dora") else {"A", "B"}
    for module, parts in modules.items():
        if parts.keys() != wanted:
            raise _misfit(adapter, f"holds {', '.join(sorted(parts))} of {clip(module, 120)} instead of A and B")
        if not _targeted(adapter.config, module):
            raise _misfit(adapter, f"changes {clip(module, 120)}, which its configuration does not name")
        first, second = parts["A"], parts["B"]
        rank = next((rank for pattern, rank in ranks if pattern.match(module)), adapter.rank)
        if len(first) != 2 or len(second) != 2 or (first[0], second[1]) != (rank, rank):
            raise _misfit(adapter, f"has shapes {first} and {second} for {clip(module, 120)}: their rank is not {rank}")
    if not isinstance(adapter.config["target_modules"], str):
        for target in adapter.targets:
            if not any(_is_one_of(module, (target,)) for module in modules):
                raise _misfit(adapter, f"holds nothing for {clip(target)}, which its configuration names")
    if not modules:
        raise _misfit(adapter, "holds no weight")


def check_fit(adapter: Adapter, base: Shapes, where: Path | str) -> None:
    """Check an adapter's shapes against those of the base model's weights.

    Args:
        adapter: a checked adapter.
        base: shape of each weight of the base model by its name.
        where: the base model.

    Raises:
        UserError: the base model lacks a module, one has another shape, or has no weights in the adapter.
    """
    modules = _modules(adapter)
    for module, parts in modules.items():
        weight = next((base[name] for name in _names(module) if name in base), None)
        if weight is None:
            if module.rpartition(".")[2] == "lm_head":  # tied to the embedding, a file need not hold it
                continue
            raise _misfit(adapter, f"changes {clip(module, 120)}, which the base model does not have", where)
        if "weight" in parts:
            fits, given = parts["weight"] == weight, parts["weight"]
        else:
            given = (parts["B"][0], parts["A"][1])
            given = given[::-1] if adapter.config.get("fan_in_fan_out") else given
            fits = given == weight
        if not fits:
            what = f"is made for shape {given} of {clip(module, 120)}, which has {weight} in the base model"
            raise _misfit(adapter, what, where)
    held = {name for module in modules for name in (module, module.partition(".")[2])}
    missing = sorted(set(_expected(adapter, base)) - held)
    if missing:
        total = len(missing) + len(modules)
        raise _misfit(adapter, f"holds nothing for {len(missing)} of {total} modules: {clip(missing[0], 120)}", where)


def _names(module: str) -> Iterator[str]:
    """Yield what a module's weight may be called in the base model's files: some leave out its first name."""
    yield f"{module}.weight"
    yield f"{module.partition('.')[2]}.weight"


def _expected(adapter: Adapter, base: Shapes) -> Iterator[str]:
    """Yield the base model's modules that the configuration names, where it names all by their last names."""
    config = adapter.config
    narrowed = any(config.get(name) not in (None, []) for name in ("layers_to_transform", "exclude_modules"))
    if isinstance(config["target_modules"], str) or narrowed:
        return
    for name, shape in base.items():
        module = name.removesuffix(".weight")
        if module != name and len(shape) == 2 and _targeted(config, module):
            yield module


def _misfit(adapter: Adapter, what: str, base: Path | str | None = None) -> UserError:
    return UserError(
        f"the adapter {what}",
        where=shown(adapter.path / WEIGHTS) + (f", base model {shown(str(base))}" if base else ""),
        next_step="name the base model that it was trained on with --base-model" if base else "save it with peft again",
    )
