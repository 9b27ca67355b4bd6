"""Patterns in an adapter's configuration: what trainers write is let through, what could take for ever is refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from safetensors.numpy import save_file

from caef_data.errors import UserError
from caef_data.eval.adapters import find_adapters
from caef_data.eval.lora import WEIGHTS
from caef_data.eval.patterns import cost
from caef_data.tests.checkpoints import RANK, lora_weights, write_adapter, write_checkpoint

MODULES = [name[len("base_model.model.") : -len(".lora_A.weight")] for name in lora_weights() if "lora_A" in name]
OPTIONAL = ".?" * 36 + "." * 12 + "Z"
UNSLOTH = (  # what Unsloth writes for models that also see
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mixer|mlp|feed_forward|ffn|dense|mixer).*?"
    r"\.(?:q_proj|v_proj|down_proj))|(?:\bmodel\.layers\.[\d]{1,}(?!.*\.experts\.\d)\..*?"
    r"(?:self_attn|attention|attn|mixer|mlp|feed_forward|ffn|dense|mixer).*?\.(?:(?:q_proj|v_proj|down_proj)))"
)


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "ckpt", ("executors/add",))


@pytest.mark.parametrize(
    "changed",
    [
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q_proj|v_proj|down_proj)"},
        {"target_modules": f"^(?:{'|'.join(re.escape(name) for name in MODULES)})$"},
        {"target_modules": "(.*(q_proj|v_proj))|(.*down_proj)"},  # peft's, of two adapters
        {"target_modules": r"^(model(?=\.).*\.(q_proj|k_proj|v_proj|down_proj))$"},
        {"target_modules": "^(?!.*(?:visual|lm_head)).*(?:q_proj|v_proj|down_proj).*"},
        {"target_modules": r".*\.?layers\.\d+\.(self_attn\.(q|k|v)_proj|mlp\.(gate|up|down)_proj)$"},
        {"target_modules": "(.*(model.layers).*(q_proj|v_proj|down_proj).*$|.*(lm_head).*$)"},
        {"target_modules": UNSLOTH},
        {"rank_pattern": {r".*\.self_attn\.q_proj": RANK}, "alpha_pattern": {"^" + re.escape(MODULES[0]): 2.5}},
        {"rank_pattern": dict.fromkeys(MODULES, RANK), "alpha_pattern": dict.fromkeys(MODULES, 8)},
        {"exclude_modules": r".*(visual|vision).*"},
        {"exclude_modules": ["lm_head"]},
        {"layers_to_transform": [0, 1], "layers_pattern": r"(?:language_model|model)\.layers"},
        {"layers_to_transform": [0, 1], "layers_pattern": ["layers", "h"]},
    ],
)
def test_what_trainers_write(ckpt: Path, changed: dict[str, Any]) -> None:
    write_adapter(ckpt / "executors/add", 1, **changed)
    assert find_adapters(ckpt, None).adapters["executors/add"].rank == RANK


@pytest.mark.parametrize(
    "changed",
    [
        {"target_modules": r"(\w+\.?)+!"},
        {"target_modules": ".*.*.*.*.*_proj"},
        {"target_modules": OPTIONAL},
        {"target_modules": [f"a{i}" for i in range(10**6)]},
        {"rank_pattern": {"(a|a)*b": 4}},
        {"rank_pattern": {OPTIONAL: 4}},
        {"rank_pattern": {"(?i)q_proj": 4}},
        {"rank_pattern": {f"a{i}": 4 for i in range(10**4)}},
        {"rank_pattern": {f"a{i}" + "b" * 1500: 4 for i in range(300)}},
        {"alpha_pattern": {"(.*)*Z": 1.0}},
        {"alpha_pattern": {f"{i}.*.*Z": 4 for i in range(100)}},
        {"exclude_modules": "(.*.*)*Z"},
        {"layers_pattern": "(.*.*)*Z", "layers_to_transform": [0]},
        {"layers_pattern": ["layers", ".*.*.*.*Z"], "layers_to_transform": [0]},
    ],
)
def test_what_could_take_for_ever(ckpt: Path, changed: dict[str, Any]) -> None:
    write_adapter(ckpt / "executors/add", 1, **changed)
    with pytest.raises(UserError, match=r"could take for ever[\s\S]*such as .*q_proj"):
        find_adapters(ckpt, None)


def test_in_long_names_and_many_less_is_let_through(ckpt: Path) -> None:
    write_adapter(ckpt / "executors/add", 1, target_modules=".*.*.*_proj")
    assert find_adapters(ckpt, None).adapters
    for names in (["a" * 5000], [f"layers.{i}.q_proj" for i in range(200_000)]):
        more = {f"base_model.model.{name}.lora_A.weight": np.zeros(1) for name in names}
        save_file(lora_weights(1) | more, ckpt / "executors/add" / WEIGHTS)
        with pytest.raises(UserError, match="looking for .* could take for ever"):
            find_adapters(ckpt, None)


@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        ("", 2),
        ("q_proj|v_proj", 4),
        (r"model\.layers\.(0|1|10)\.q_proj", 8),
        ("(?:q|k|v)_proj", 5),
        (".*", 2),
        (".*_proj", 70),
        ("(.*)$", 2),
        ("(?!.*visual).*", 140),
    ],
)
def test_what_takes_little(pattern: str, most: int) -> None:
    assert 1 <= cost(pattern, 64) <= most


@pytest.mark.parametrize(
    ("pattern", "least"),
    [
        (".*.*Z", 64 * 64 / 2),
        (".*.*$Z", 64 * 64 / 2),
        (r".*.*\b", 64 * 64 / 2),
        ("(.*|a)(.*|b)Z", 64 * 64 / 2),
        ("(?:.*)?.{2,}Z", 64 * 64 / 2),
        ("a?" * 20, 2**20),
        ("(a?)" * 20, 2**20),
        ("(a)?" * 20, 2**20),
        ("(a|a)" * 20, 2**20),
        ("(a|aa|aaa)" * 10, 3**10),
        ("(a|.)" * 20, 2**20),
        ("a{0,9}" * 6, 10**6),
        ("(?!.*.*.*.*Z)" * 10, 5e6),
        (".*.*(?=.*.*Z)", 5e5),
        ("((.*)(.*)(.*|a))(.*)Z", 5e5),
    ],
)
def test_what_takes_much(pattern: str, least: float) -> None:
    assert cost(pattern, 64) >= least


@pytest.mark.parametrize(
    "pattern",
    ["(a*)*", "(a)+", "(a){2,3}", "(?i)a", "(?P<a>b)", r"(a)\1", "a++", "(?>a)", "(?#a)", "a" * 10**6, ".*" * 9 + "Z"],
)
def test_what_is_not_let_through(pattern: str) -> None:
    with pytest.raises(ValueError, match="there (is|are)"):
        cost(pattern, 64)


def test_too_much_text(ckpt: Path) -> None:
    write_adapter(ckpt / "executors/add", 1, rank_pattern={f"a{i}" + "b" * 90_000: 4 for i in range(6)})
    with pytest.raises(UserError, match="6 patterns, of more than 500,000 characters together"):
        find_adapters(ckpt, None)
