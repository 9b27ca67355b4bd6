"""Checks the YAML at the top of a dataset card, as far as the Hub and ``datasets`` care."""

from itertools import pairwise
from typing import Any

import yaml

STEPS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
SIZES = {"n<1K", "n>1T", *(f"{low}<n<{high}" for low, high in pairwise(STEPS))}


def check_card(text: str) -> tuple[list[str], list[str]]:
    """Return (errors, warnings) of a README.md."""
    lines = text.splitlines()
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    except yaml.YAMLError as error:
        return [f"YAML: {error}"], []
    if not isinstance(data, dict):
        return ["the metadata is no mapping"], []
    errors = []
    for key in ("language", "tags", "task_categories", "size_categories"):
        values = data.get(key, [])
        if not all(isinstance(one, str) for one in (values if isinstance(values, list) else [values])):
            errors.append(f'"{key}" must be a string or a list of strings')
    sizes = data.get("size_categories", [])
    unknown = [one for one in ([sizes] if isinstance(sizes, str) else sizes) if one not in SIZES]
    errors += [f'"size_categories": {one!r} is unknown' for one in unknown]
    if not isinstance(data.get("license", ""), (str, list)):
        errors.append('"license" must be a string')
    return errors + _check_configs(data.get("configs", [])), []


def _check_configs(configs: Any) -> list[str]:
    if not isinstance(configs, list) or not all(isinstance(one, dict) for one in configs):
        return ['"configs" must be a list of mappings']
    errors, names = [], []
    for config in configs:
        name = config.get("config_name")
        if not isinstance(name, str) or not name:
            errors.append(f'"config_name" must be a string: {name!r}')
        names.append(name)
        files = config.get("data_files")
        listed = files if isinstance(files, list) else [files]
        if all(isinstance(one, str) for one in listed):
            continue
        if not all(isinstance(one, dict) and set(one) == {"split", "path"} for one in listed):
            errors.append(f'"data_files" of {name!r} must be a path, paths, or a list of split and path')
            continue
        splits = [one["split"] for one in listed]
        if len(set(map(str, splits))) < len(splits):
            errors.append(f"{name!r} names a split twice")
    if len(set(map(str, names))) < len(names):
        errors.append("two configs have the same name")
    if sum(bool(one.get("default")) for one in configs) > 1:
        errors.append("two configs are the default")
    return errors
