"""The YAML of turingmachine.io: ``blank``, ``start state``, ``input``, ``synonyms`` and ``table``.

Names and symbols are the text that stands there: YAML would make numbers and truth values of ``01``, ``1e3`` and
``no``. So this reader works on the nodes and never on the values that they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import did_you_mean, quoted
from .rules import LEFT, MOST_RULES, RIGHT, STAY, Rule, TableWriter

MOVES = {"L": LEFT, "R": RIGHT, "N": STAY}  # N is of later versions of the site
KEYS = ("blank", "start state", "input", "synonyms", "table", "name")
DEEPEST = 8  # libyaml's composer overruns the stack on deep nesting, and the process dies
MOST_EVENTS = 12 * MOST_RULES
DIRECTIONS = "L, R, N or a synonym; or such as {write: 1, L: done}"
MERGE = "tag:yaml.org,2002:merge"
Node = Any  # yaml.Node: the package has no types
Pairs = dict[str, tuple[Node, Node]]  # keys and values by the keys' texts
Instruction = tuple[str | None, int, str | None]  # None: the symbol that is read, the state that it is in
PLAIN: dict[str, Instruction] = {name: (None, move, None) for name, move in MOVES.items()}


def read(text: str, writer: TableWriter) -> str:
    """Read a text; its first state is returned."""
    reader = _Reader(writer)
    root = reader.pairs(_compose(text, writer), "the text")
    for name, (key, _) in root.items():
        what = f"unknown key {quoted(name)}{did_you_mean(name[:60], KEYS)}"
        reader.require(name in KEYS, what, key, ", ".join(KEYS))
    for name in ("blank", "start state", "table"):
        writer.require(name in root, f"the key {name!r} is missing", None, "blank, start state and table")
    parts = {name: value for name, (_, value) in root.items()}
    writer.blank = reader.text(parts["blank"], "the blank")
    reader.symbol(writer.blank, parts["blank"])
    reader.states = reader.pairs(parts["table"], "the table")
    for name, (key, _) in reader.states.items():
        writer.check("state", name, _line(key))
    start = reader.state(parts["start state"], "the start state")
    reader.read_rules(reader.pairs(parts["synonyms"], "the synonyms") if "synonyms" in parts else {})
    if "input" in parts:
        writer.example = "" if _is_null(parts["input"]) else reader.text(parts["input"], "the input")
    return start


def _compose(text: str, writer: TableWriter) -> Node:
    import yaml  # here: only files of this format need it

    loader, depth = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 0
    try:
        for number, event in enumerate(yaml.parse(text, Loader=loader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            line = _line(event)
            writer.require(depth <= DEEPEST, "this is nested too deeply for a machine", line)
            writer.require(number <= MOST_EVENTS, "this table is too large", line, f"{MOST_RULES:,} rules at most")
        found = yaml.compose(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = f"this is not YAML: {getattr(error, 'problem', None) or error}"
        raise writer.error(what, mark and mark.line + 1) from error
    writer.require(found, "the text is empty", None, "blank, start state and table")
    return found


class _Reader:
    """Reads nodes; ``states`` are those of the table."""

    def __init__(self, writer: TableWriter) -> None:
        self.writer, self.states = writer, Pairs()

    def require(self, holds: object, what: str, node: Node, allowed: str | None = None) -> None:
        self.writer.require(holds, what, _line(node), allowed)

    def read_rules(self, found: Pairs) -> None:
        """Take the rules of all states, with some synonyms."""
        for name, (key, _) in found.items():
            self.require(name not in MOVES, f"{name} is a direction and cannot be a synonym", key)
        synonyms = PLAIN | {name: self.instruction(body, PLAIN) for name, (_, body) in found.items()}
        for state, (_, body) in self.states.items():
            for key, value in self.mapping(body, f"the state {quoted(state)}"):
                write, move, then = self.instruction(value, synonyms)
                # A key that is a list stands for each of its symbols; the site joins them with commas.
                parts = key.value if key.id == "sequence" else [key]
                for symbol in ",".join(self.text(part, "a symbol") for part in parts).split(","):
                    read = self.symbol(symbol, key)
                    rule = Rule((read if write is None else write,), (move,), then or state)
                    self.writer.add(_line(key), state, (read,), rule)

    def instruction(self, node: Node, synonyms: Mapping[str, Instruction]) -> Instruction:
        if node.id == "scalar":
            if node.value not in synonyms:
                what = f"{quoted(node.value)} is no instruction{did_you_mean(node.value[:60], synonyms)}"
                raise self.writer.error(what, _line(node), DIRECTIONS)
            return synonyms[node.value]
        parts = {name: value for name, (_, value) in self.pairs(node, "an instruction").items()}
        what, written = f"an instruction has the keys {quoted(', '.join(parts))}", parts.pop("write", None)
        self.require(len(parts) == 1 and parts.keys() <= MOVES.keys(), what, node, DIRECTIONS)
        write = None if written is None else self.symbol(self.text(written, "write"), written)
        [(move, value)] = parts.items()
        return write, MOVES[move], None if _is_null(value) else self.state(value, "the next state")

    def state(self, node: Node, what: str) -> str:
        return self.writer.known(self.text(node, what), self.states, _line(node))

    def symbol(self, text: str, node: Node) -> str:
        self.require(len(text) == 1, f"{quoted(text)} is no single character", node, "one symbol a cell")
        self.writer.check("symbol", text, _line(node))
        return text

    def text(self, node: Node, what: str) -> str:
        """Return the text of a scalar as it stands there."""
        is_text = node.id == "scalar" and not _is_null(node)
        self.require(is_text, f"{what} is no text", node, "a text; ~ and null only in quotes")
        return str(node.value)

    def mapping(self, node: Node, what: str) -> list[tuple[Node, Node]]:
        if _is_null(node):
            return []
        self.require(node.id == "mapping", f"{what} is no mapping", node, "lines such as key: value")
        for key, _ in node.value:
            self.require(key.tag != MERGE, "<< is not read", key, "every rule written out")
        return list(node.value)

    def pairs(self, node: Node, what: str) -> Pairs:
        """Return a mapping's nodes by the text of their keys; a key that is there twice is refused."""
        found = Pairs()
        for key, value in self.mapping(node, what):
            text = self.text(key, "a key")
            first, _ = found.setdefault(text, (key, value))
            self.require(first is key, f"{quoted(text)} is there twice, first in line {_line(first)}", key)
        return found


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _is_null(node: Node) -> bool:
    return bool(node.id == "scalar" and not node.style and node.value in ("", "~", "null", "Null", "NULL"))
