"""Identities of 200 declarations, recorded before their validation was rewritten, and what messages about bad ones say.

``python tests/test_declaration_record.py`` records the identities anew, which belongs to a change of all datasets. The
messages' words are written by hand: the field, what is allowed, the nearest name, the next command.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from caef_data.errors import UserError
from caef_data.pipelines.declaration import (
    from_flags,
    load_declaration,
    parse_declaration,
    rebuild_command,
    shipped_declarations,
)
from caef_data.pipelines.settings import Declaration, TaskSettings, canonical_json, digest

RECORD = Path(__file__).with_name("data") / "declarations.json"
NINE = ("add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask")
VIEWS = ("one_step", "full", "aligner", "raw", "scratchpad", "commands")
SPLITS = ("train", "test", "stress")
LONG = ("addition", "subtraction", "multiplication", "division")


def made(how: dict[str, Any]) -> Declaration:
    """Make a declaration as the record says: shipped, of TOML or of flags."""
    if "shipped" in how:
        return load_declaration(how["shipped"])
    if "toml" in how:
        return parse_declaration(how["toml"], "my.toml", source=how.get("source"))
    return from_flags(how["task"], **how["flags"])


def header(declaration: Declaration) -> dict[str, Any]:
    return {key: getattr(declaration, key) for key in ("name", "description", "repo")}


def told(declaration: Declaration) -> dict[str, Any]:
    """Return what must stay of a declaration: its canonical JSON (a digest of it), identities and command."""
    return {
        "json": digest({**header(declaration), "tasks": [settings.to_dict() for settings in declaration.tasks]}),
        "identity": declaration.identity(),
        "tasks": digest([settings.identity() for settings in declaration.tasks]),
        "configs": digest([
            [view, split, settings.config_identity(view, split)]
            for settings in declaration.tasks
            for view, split in settings.configs()
        ]),
        "left_out": [list(settings.left_out()) for settings in declaration.tasks if settings.left_out()],
        "command": rebuild_command(declaration),
    }  # fmt: skip


def some_settings(rng: random.Random) -> dict[str, Any]:
    """Return settings that are likely valid; each field is given or left out."""
    low = rng.choice([1, 1, 2, 7, 40])
    values = {
        "min": low,
        "max": rng.choice([low, low + 1, low + 9, 100, 999]),
        "num": rng.choice([1, 3, 9, 10, 20, 1_000, 10**9]),
        "num_test": rng.choice([0, 1, 2, 77]),
        "splits": rng.sample(SPLITS, rng.randint(1, 3)),
        "views": rng.sample(VIEWS, rng.randint(1, 6)),
        "seed": rng.choice([0, 42, 2**63 - 1]),
        "dialect": rng.choice(["consistent", "published"]),
        "steps": rng.choice(["sampled", "all"]),
        "balance": rng.random() < 0.5,
        "max_steps": rng.choice([1, 500, 10_000, 10**6]),
        "rows_per_shard": rng.choice([1, 1_000, 10**9]),
    }
    return {key: value for key, value in values.items() if rng.random() < 0.5}


def as_toml(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def candidates() -> Any:
    """Yield ways to make declarations; some of them are refused."""
    yield from ({"shipped": name} for name in shipped_declarations())
    for task in (*NINE, *LONG, "all"):
        yield {"task": [task], "flags": {}}
    rng = random.Random(11)
    while True:
        tasks = rng.sample([*NINE, *LONG], rng.choice([1, 1, 1, 2, 3]))
        if rng.random() < 0.5:
            yield {"task": tasks, "flags": some_settings(rng)}
            continue
        top = {
            "name": rng.choice(["x", "my-runs", "a.b_c"]),
            "description": "Some é text.\nTwo lines.",
            "repo": "me/runs",
        }
        top = {key: value for key, value in top.items() if rng.random() < 0.5} | some_settings(rng)
        if rng.random() < 0.3:
            top["max_len"] = rng.choice([999, 1_000, 10_000])
        text = as_toml(top) + "".join(f"\n[[task]]\n{as_toml({'task': one, **some_settings(rng)})}" for one in tasks)
        source = {"source": rng.choice(["runs/my.toml", "a b.toml"])} if rng.random() < 0.5 else {}
        yield {"toml": text, **source}


def record(number: int = 200) -> list[dict[str, Any]]:
    """Return the first valid candidates with what is told of them."""
    found: list[dict[str, Any]] = []
    for how in candidates():
        try:
            found.append({"how": how, "told": told(made(how))})
        except UserError:
            continue
        if len(found) == number:
            break
    return found


def test_identities_are_those_recorded() -> None:
    recorded = json.loads(RECORD.read_text())["identities"]
    assert len(recorded) == 200
    assert {"shipped", "toml", "flags"} <= {key for one in recorded for key in one["how"]}
    for one in recorded:
        declaration = made(one["how"])
        expected = one["told"]
        if " && " in expected["command"]:  # of 0.1.0: one for each of its tasks
            expected = {**expected, "command": f"caef-data build {declaration.name}.toml"}
        assert told(declaration) == expected, one["how"]
        for settings in declaration.tasks:
            assert TaskSettings.of(json.loads(canonical_json(settings.to_dict()))) == settings


@pytest.mark.parametrize("bad", json.loads(RECORD.read_text())["messages"], ids=lambda bad: json.dumps(bad["how"])[:60])
def test_messages_hold_what_a_user_needs(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refusal:
        made(bad["how"])
    assert not [word for word in bad["words"] if word not in str(refusal.value)], str(refusal.value)


def write(content: dict[str, list[Any]]) -> None:
    """Write the record, a line each."""
    parts = [f'"{key}": [\n' + ",\n".join(map(json.dumps, lines)) + "\n]" for key, lines in content.items()]
    RECORD.write_text("{" + ",\n".join(parts) + "}\n")


if __name__ == "__main__":
    write({**json.loads(RECORD.read_text()), "identities": record()})
    print(f"wrote {RECORD}")
