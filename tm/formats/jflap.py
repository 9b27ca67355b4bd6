"""The files of JFLAP (.jff): a Turing machine with one tape, as XML.

A missing or empty ``read`` or ``write`` is the blank, a missing ``move`` is R. JFLAP's shortcuts (``~`` for any symbol,
``!a`` for all but a, ``a,b}v`` for variables) are refused: what they stand for depends on symbols that the file need
not name. So are rules of a final state: JFLAP halts where it enters one, unless a preference of the program says
otherwise, which the file does not hold.
"""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ...errors import quoted
from .rules import LEFT, RIGHT, STAY, Rule, TableWriter

BLANK, BOX = " ", "\u25a1"  # JFLAP shows a box and writes nothing
MOVES = {"": RIGHT, "L": LEFT, "R": RIGHT, "S": STAY}
LINE = " line"  # an attribute that no file can have


def read(text: str, writer: TableWriter) -> str:
    """Read a text; its first state is returned."""
    writer.blank, structure = BLANK, _parsed(text, writer)
    kind, tapes = structure.findtext("type", "").strip(), structure.findtext("tapes", "1").strip()
    what = f"this is no Turing machine of JFLAP: {quoted(structure.tag)} of type {quoted(kind)}"
    fits = (structure.tag, kind.lower()) == ("structure", "turing")
    writer.require(fits, what, _line(structure), "<structure> with <type>turing</type>")
    writer.require(tapes == "1", f"a machine with {quoted(tapes)} tapes", None, "one tape")
    found = structure.findall("automaton") or [structure]
    for element in [*found[1:], *found[0]]:
        plain = {inner.tag for inner in element}.isdisjoint(("state", "block", "automaton", "transition"))
        what = f"<{element.tag}> holds an automaton of its own"
        writer.require(plain, what, _line(element), "states without building blocks")
    elements = [element for element in found[0] if element.tag in ("state", "block")]
    states = {element.get("id", ""): element for element in elements}
    names = {ident: element.get("name", f"q{ident}") for ident, element in states.items()}
    apart = len(elements) == len({*names.values()}) and "" not in states
    writer.require(apart, "states share an id or a name, or one has no id", None, "an id and a name for each state")
    initial = [names[ident] for ident, element in states.items() if element.find("initial") is not None]
    writer.require(len(initial) == 1, f"{len(initial)} initial states", None, "one initial state")
    for element in found[0].findall("transition"):
        _add(writer, element, states, names)
    return initial[0]


def _parsed(text: str, writer: TableWriter) -> Element:
    parser, builder = expat.ParserCreate("utf-8"), TreeBuilder()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, LINE: str(parser.CurrentLineNumber)})

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise writer.error(f"this is not XML: {expat.ErrorString(error.code)}", error.lineno) from error
    return builder.close()


def _line(element: Element) -> int:
    return int(element.attrib[LINE])


def _add(writer: TableWriter, element: Element, states: dict[str, Element], names: dict[str, str]) -> None:
    line, parts = _line(element), dict[str, str]()
    for part in element:
        first = part.tag not in parts and part.get("tape", "1") == "1"
        writer.require(first, f"<{part.tag}> is there for a second tape", _line(part), "one tape")
        parts[part.tag] = part.text or ""
    here, then, move = (parts.get(tag, "").strip() for tag in ("from", "to", "move"))
    for ident in (here, then):
        writer.require(ident in states, f"there is no state with the id {quoted(ident)}", line, "the id of a state")
    what = f"the final state {quoted(names[here])} has a rule, but JFLAP halts where it enters it"
    writer.require(states[here].find("final") is None, what, line, "final states without rules")
    writer.require(move in MOVES, f"{quoted(move)} is no move", line, "L, R or S")
    for symbol in (symbols := [parts.get(tag, "") for tag in ("read", "write")]):
        what = f"{quoted(symbol)} is no single symbol, or one of JFLAP's shortcuts"
        single = len(symbol) < 2 and symbol not in tuple("~!} ")
        writer.require(single, what, line, "one character, none of ~ ! }, and a rule for each symbol")
    read, write = (BLANK if symbol in ("", BOX) else symbol for symbol in symbols)
    writer.add(line, names[here], (read,), Rule((write,), (MOVES[move],), names[then]))
