"""The YAML of turingmachine.io: ``blank``, ``start state``, ``input``, ``synonyms`` and ``table``.

Names and symbols are the text that stands there: YAML would make numbers and truth values of ``01``, ``1e3`` and
``no``. So this reader works on the nodes and never on the values that they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import UserError, did_you_mean, quoted
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
        if name not in KEYS:
            raise reader.error(f"unknown key {quoted(name)}{did_you_mean(name[:60], KEYS)}", key, ", ".join(KEYS))
    if missing := [name for name in ("blank", "start state", "table") if name not in root]:
        raise writer.error(f"the key {missing[0]!r} is missing", None, "blank, start state and table")
    parts = {name: value for name, (_, value) in root.items()}
    writer.blank = reader.text(parts["blank"], "the blank")
    reader.symbol(writer.blank, parts["blank"])
    for name, (key, body) in reader.pairs(parts["table"], "the table").items():
        writer.check("state", name, _line(key))
        reader.states[name] = body
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
            if depth > DEEPEST:
                raise writer.error("this is nested too deeply for a machine", _line(event))
            if number > MOST_EVENTS:
                raise writer.error("this table is too large", _line(event), f"{MOST_RULES:,} rules at most")
        found = yaml.compose(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = f"this is not YAML: {getattr(error, 'problem', None) or error}"
        raise writer.error(what, mark and mark.line + 1) from error
    if found is None:
        raise writer.error("the text is empty", None, "blank, start state and table")
    return found


class _Reader:
    def __init__(self, writer: TableWriter) -> None:
        self.writer, self.states = writer, dict[str, Node]()

    def read_rules(self, found: Pairs) -> None:
        """Take the rules of all states, with some synonyms."""
        if reserved := next((key for name, (key, _) in found.items() if name in MOVES), None):
            raise self.error(f"{reserved.value} is a direction and cannot be a synonym", reserved)
        synonyms = PLAIN | {name: self.instruction(body, PLAIN) for name, (_, body) in found.items()}
        for state, body in self.states.items():
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
                raise self.error(what, node, DIRECTIONS)
            return synonyms[node.value]
        parts = {name: value for name, (_, value) in self.pairs(node, "an instruction").items()}
        names, written = quoted(", ".join(parts)), parts.pop("write", None)
        if len(parts) != 1 or not set(parts) <= set(MOVES):
            raise self.error(f"an instruction has the keys {names}", node, DIRECTIONS)
        write = None if written is None else self.symbol(self.text(written, "write"), written)
        [(move, value)] = parts.items()
        return write, MOVES[move], None if _is_null(value) else self.state(value, "the next state")

    def state(self, node: Node, what: str) -> str:
        return self.writer.known(self.text(node, what), self.states, _line(node))

    def symbol(self, text: str, node: Node) -> str:
        if len(text) != 1:
            raise self.error(f"{quoted(text)} is no single character", node, "one symbol a cell")
        self.writer.check("symbol", text, _line(node))
        return text

    def text(self, node: Node, what: str) -> str:
        """Return the text of a scalar as it stands there."""
        if node.id != "scalar" or _is_null(node):
            raise self.error(f"{what} is no text", node, "a text; ~ and null only in quotes")
        return str(node.value)

    def mapping(self, node: Node, what: str) -> list[tuple[Node, Node]]:
        if _is_null(node):
            return []
        if node.id != "mapping":
            raise self.error(f"{what} is no mapping", node, "lines such as key: value")
        if merged := next((key for key, _ in node.value if key.tag == MERGE), None):
            raise self.error("<< is not read", merged, "every rule written out")
        return list(node.value)

    def pairs(self, node: Node, what: str) -> Pairs:
        """Return a mapping's nodes by the text of their keys; a key that is there twice is refused."""
        found: Pairs = {}
        for key, value in self.mapping(node, what):
            text = self.text(key, "a key")
            if text in found:
                raise self.error(f"{quoted(text)} is there twice, first in line {_line(found[text][0])}", key)
            found[text] = key, value
        return found

    def error(self, what: str, node: Node, allowed: str | None = None) -> UserError:
        return self.writer.error(what, _line(node), allowed)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _is_null(node: Node) -> bool:
    return bool(node.id == "scalar" and not node.style and node.value in ("", "~", "null", "Null", "NULL"))
