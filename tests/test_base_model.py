"""Configurations of base models: those that fetch code are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from caef_data.errors import UserError
from caef_data.eval.checkpoint import read_base
from caef_data.tests.checkpoints import write_base, write_json


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


def change(base: Path, **changed: Any) -> None:
    path = base / "config.json"
    write_json(path, {**json.loads(path.read_text()), **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"_attn_implementation": "attacker/kernel"},
        {"attn_implementation": "attacker/flash_attention_2@main"},
        {"attn_implementation": {"": "sdpa", "text_config": "attacker/kernel:function"}},
        {"_attn_implementation_internal": "attacker/kernel"},
        {"experts_implementation": "attacker/kernel"},
        {"per_layer_config": [{"_attn_implementation": ["attacker/kernel"]}]},
    ],
)
def test_a_base_whose_attention_is_code(base: Path, changed: dict[str, Any]) -> None:
    change(base, **changed)
    with pytest.raises(UserError, match="_implementation.* of the base model's .* may be code of its own"):
        read_base(base)


def test_what_bases_say(base: Path) -> None:
    change(
        base,
        _attn_implementation="flash_attention_2",
        _attn_implementation_autoset=True,
        text_config={"attn_implementation": {"": "sdpa"}, "experts_implementation": None, "num_experts": 512},
        vision_feature_layer=-2,
        vocab_size_per_layer_input=262_144,
        max_position_embeddings=10_485_760,
    )
    assert len(read_base(base).sha256) == 64
