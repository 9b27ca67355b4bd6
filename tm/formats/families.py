"""Families of machines: random ones, the form in which two of them are compared, and the side of a machine.

Two machines are the same where they differ in the names of states, in rules that no run reaches, or in left and right.
"""

import hashlib
from collections.abc import Sequence

from ...errors import UserError, whole_number
from .rules import LEFT, RIGHT, Key, Rule, RuleTable

MOST_STATES, MOST_SYMBOLS, MOST_MACHINES = 26, 10, 10_000
TRIES = 20_000  # without a new machine, and the search ends
WORDS, LONGEST_RUN = 16, 1_000
Cells = Sequence[tuple[int, int, int] | None]  # by state * symbols + symbol: write, move, next state


def canonical_form(table: RuleTable) -> RuleTable:
    """Return the form that all machines share which are equal but for names of states, unreached rules and direction.

    States are named A, B, ... in the order in which a walk from the start meets them, breadth first and by the order
    of symbols, the blank first. The first rule that moves a head moves it to the right, as in the busy beaver lists.
    Symbols keep their names. Raises UserError where the machine halts at once, whatever it reads.
    """
    ordered = sorted(table.rules.items(), key=lambda item: [*map(table.symbols.index, item[0][1])])
    reached = list[tuple[Key, Rule]]()
    for state in (walk := [table.start]):  # it grows on the way
        for key, rule in ordered:
            if key[0] == state:
                reached.append((key, rule))
                walk += [rule.next] * (rule.next not in walk)
    names = {state: chr(ord("A") + place) for place, state in enumerate(walk)}
    side = next((move for _, rule in reached for move in rule.moves if move), RIGHT)
    rules = {
        (names[state], read): Rule(rule.write, tuple(side * move for move in rule.moves), names[rule.next])
        for (state, read), rule in reached
    }
    return RuleTable("A", table.blank, rules, table.where)


def machine_side(table: RuleTable) -> str:
    """Return ``train`` or ``test``, for one machine in ten: by its canonical form and by nothing else."""
    text = f"side of machine {canonical_form(table).identity}"
    return "test" if 10 * int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) < 2**64 else "train"


def random_machines(states: int, symbols: int, count: int, seed: int) -> list[RuleTable]:
    """Return random machines that do something, in canonical form, no two of them equal; the blank is 0.

    Every state can be reached from the first one; one rule is missing, not that of the first state on the blank; from a
    blank tape a machine makes at least 2 steps a state; and on half of 16 fixed words of 1 to 4 symbols it makes at
    least a step a state and halts within 1,000. A pure function of its arguments; fewer machines of the same states,
    symbols and seed are the first ones of more. Raises UserError where a number is out of range, or none are left.
    """
    whole_number("states", states, 1, MOST_STATES)
    whole_number("symbols", symbols, 2, MOST_SYMBOLS)
    whole_number("count", count, 1, MOST_MACHINES)
    found: dict[str, RuleTable] = {}
    words, attempt, last = _words(symbols), 0, 0  # last: the try that found a new one
    while len(found) < count:
        if attempt - last > TRIES:
            what = f"{len(found):,} of {count:,} machines with {states} states and {symbols} symbols were found"
            raise UserError(f"{what} in {attempt:,} tries", allowed="fewer machines, more states or symbols")
        attempt += 1
        cells = _cells(states, symbols, f"{seed} {attempt}")
        if _does_something(cells, states, symbols, words):
            rules: dict[Key, Rule] = {
                (str(place // symbols), (str(place % symbols),)): Rule((str(cell[0]),), (cell[1],), str(cell[2]))
                for place, cell in enumerate(cells)
                if cell
            }
            table = canonical_form(RuleTable("0", "0", rules, "random machine"))
            if len(table.states) == states and table.identity not in found:
                found[table.identity], last = table, attempt
    return list(found.values())


def _words(symbols: int) -> list[tuple[int, ...]]:
    drawn = (hashlib.shake_128(f"word {symbols} {place}".encode()).digest(1 + place % 4) for place in range(WORDS))
    return list(dict.fromkeys(tuple(1 + byte % (symbols - 1) for byte in word) for word in drawn))


def _cells(states: int, symbols: int, key: str) -> Cells:
    """Return the rules of one try, drawn from a hash: Python's own random numbers may change with its version."""
    num_cells = states * symbols
    digest = hashlib.shake_128(f"machine {states} {symbols} {key}".encode()).digest(2 * num_cells + 16)
    number, missing = divmod(int.from_bytes(digest), num_cells - 1)
    cells = list[tuple[int, int, int] | None]()
    for place in range(num_cells):
        number, write = divmod(number, symbols)
        number, right = divmod(number, 2)
        number, then = divmod(number, states)
        # The first one goes to the right, so that the canonical form does not mirror it.
        cells.append(None if place == missing + 1 else (write, RIGHT if right or not place else LEFT, then))
    return cells


def _does_something(cells: Cells, states: int, symbols: int, words: Sequence[Sequence[int]]) -> bool:
    failed = len(words) * (_steps(cells, symbols, (), 2 * states) < 2 * states)
    for word in words:
        if 2 * failed > len(words):  # most machines end here, without a look at the other words
            return False
        failed += not states <= _steps(cells, symbols, word, LONGEST_RUN) < LONGEST_RUN
    return 2 * failed <= len(words)


def _steps(cells: Cells, symbols: int, word: Sequence[int], most: int) -> int:
    """Return how many steps a run makes before it halts, ``most`` where it makes as many or more."""
    tape, place, state = dict(enumerate(word)), 0, 0
    for step in range(most):
        cell = cells[state * symbols + tape.get(place, 0)]
        if cell is None:
            return step
        tape[place], move, state = cell
        place += move
    return most
