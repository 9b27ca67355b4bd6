"""The YAML of turingmachine.io: ``blank``, ``start state``, ``input``, ``synonyms`` and ``table``.

Names and symbols are the text that stands there: YAML would make numbers and truth values of ``01``, ``1e3`` and
``no``. So this reader works on the nodes and never on the values that they stand for.
"""

from collections.abc import Mapping
from typing import Any

from ...errors import did_you_mean, quoted
from .rules import LEFT, RIGHT, STAY, Rule, TableWriter

KEYS = ("blank", "start state", "table", "input", "synonyms", "name")  # the first three must be there
DIRECTIONS = "L, R, N or a synonym; or such as {write: 1, L: done}"
Node = Any  # yaml.Node: the package has no types
Pairs = dict[str, tuple[Node, Node]]  # keys and values by the keys' texts
Instruction = tuple[str | None, int, str | None]  # None: the symbol that is read, the state that it is in
MOVES: dict[str, Instruction] = {"L": (None, LEFT, None), "R": (None, RIGHT, None), "N": (None, STAY, None)}


def read(text: str, writer: TableWriter) -> str:
    """Read a text; its first state is returned."""
    import yaml  # here: only files of this format need it

    try:
        node = yaml.SafeLoader(text).get_single_node()
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = f"this is not YAML: {getattr(error, 'problem', None) or error}"
        raise writer.error(what, mark and mark.line + 1) from error
    writer.require(node, "the text is empty", None, ", ".join(KEYS[:3]))
    return _Reader(writer).machine(node)


class _Reader:
    """Reads nodes; ``states`` are those of the table."""

    def __init__(self, writer: TableWriter) -> None:
        self.writer, self.states = writer, Pairs()

    def machine(self, node: Node) -> str:
        found, writer = self.pairs(node, "the text"), self.writer
        for name, (key, _) in found.items():
            what = f"unknown key {quoted(name)}{did_you_mean(name[:60], KEYS)}"
            self.require(name in KEYS, what, key, ", ".join(KEYS))
        for name in KEYS[:3]:
            writer.require(name in found, f"the key {name!r} is missing", None, ", ".join(KEYS[:3]))
        parts = {name: value for name, (_, value) in found.items()}
        writer.blank = self.text(parts["blank"], "the blank")
        self.symbol(writer.blank, parts["blank"])
        if "input" in parts:
            writer.example = "" if _is_null(parts["input"]) else self.text(parts["input"], "the input")
        self.states = self.pairs(parts["table"], "the table")
        synonyms = dict(MOVES)
        for name, (key, body) in (self.pairs(parts["synonyms"], "the synonyms") if "synonyms" in parts else {}).items():
            self.require(name not in MOVES, f"{name} is a direction and cannot be a synonym", key)
            synonyms[name] = self.instruction(body, MOVES)
        for state, (_, body) in self.states.items():
            self.read_rules(state, body, synonyms)
        return self.state(parts["start state"], "the start state")

    def read_rules(self, state: str, body: Node, synonyms: Mapping[str, Instruction]) -> None:
        for key, value in self.mapping(body, f"the state {quoted(state)}"):
            write, move, then = self.instruction(value, synonyms)
            # A key that is a list stands for each of its symbols; the site joins them with commas.
            parts = key.value if key.id == "sequence" else [key]
            for symbol in ",".join(self.text(part, "a symbol") for part in parts).split(","):
                self.symbol(symbol, key)
                rule = Rule((symbol if write is None else write,), (move,), state if then is None else then)
                self.writer.add(_line(key), state, (symbol,), rule)

    def instruction(self, node: Node, synonyms: Mapping[str, Instruction]) -> Instruction:
        if node.id == "scalar" and node.value in synonyms:
            return synonyms[node.value]
        if node.id == "scalar":
            what = f"{quoted(node.value)} is no instruction{did_you_mean(node.value[:60], synonyms)}"
            raise self.writer.error(what, _line(node), DIRECTIONS)
        parts = {name: value for name, (_, value) in self.pairs(node, "an instruction").items()}
        what, written = f"an instruction has the keys {quoted(', '.join(parts))}", parts.pop("write", None)
        self.require(len(parts) == 1 and parts.keys() <= MOVES.keys(), what, node, DIRECTIONS)
        [(move, then)] = parts.items()
        write = written and self.symbol(self.text(written, "write"), written)
        return write, MOVES[move][1], None if _is_null(then) else self.state(then, "the next state")

    def require(self, holds: object, what: str, node: Node, allowed: str | None = None) -> None:
        self.writer.require(holds, what, _line(node), allowed)

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
        self.require(_is_null(node) or node.id == "mapping", f"{what} is no mapping", node, "lines such as key: value")
        return [] if _is_null(node) else node.value

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
    return bool(node.tag == "tag:yaml.org,2002:null")
