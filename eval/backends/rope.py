"""Rotary positions whose factors depend on the length that a model sees: which rows may share a forward pass."""

from __future__ import annotations

from typing import Any, NamedTuple


class Border(NamedTuple):
    """A length at which the factors of all positions change.

    Args:
        length: the longest row that sees the first factors.
        grows: above it they change with every token; else they are one other set.
    """

    length: int
    grows: bool


def borders(net: Any) -> tuple[Border, ...]:
    """Return the lengths at which a model's rotary factors change."""
    found = set()
    for module in net.modules():
        kinds = getattr(module, "rope_type", None)
        if kinds is None:
            continue
        for layer, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
            if kind == "longrope":
                settings = module.config.rope_parameters
                settings = settings if layer is None else settings[layer]
                found.add(Border(settings["original_max_position_embeddings"], False))
            elif "dynamic" in str(kind):
                found.add(Border(module.original_max_seq_len, True))
    return tuple(sorted(found))


def side(found: tuple[Border, ...], given: int, fed: int) -> tuple[int, ...] | None:
    """Return on which side of every border a row lies alone; None where it crosses one, or factors grow with it.

    Args:
        found: the borders.
        given: tokens that decoding begins with.
        fed: tokens that the model reads in all.
    """
    sides = []
    for border in found:
        if fed <= border.length:
            sides.append(0)
        elif given > border.length and not border.grows:
            sides.append(1)
        else:
            return None
    return tuple(sides)


def forget_growth(net: Any) -> None:
    """Give growing factors their first values: the library keeps what a longer row has left."""
    for module in net.modules():
        kinds = getattr(module, "rope_type", None)
        for layer, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
            if kind is None or "dynamic" not in str(kind):
                continue
            prefix = "" if layer is None else f"{layer}_"
            module.register_buffer(f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq"), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def has_experts(config: Any) -> bool:
    """Tell whether a router chooses which weights a token meets."""
    names = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    return any((getattr(config, name, None) or 0) > 1 for name in names)
