"""The column ``instruction``: what a machine is, what stands in its rows, and what a view asks of the reader.

A machine's file says what is its own; the sentences that all share stand here, and examples come from its own runs.
"""

from functools import cache
from textwrap import fill

from .machine import HALT, Machine

WIDTH = 106  # columns of the text, part of the rows
VIEW_JOB = {
    "full": "Here, go on until the machine halts and write only the entry that it halts with.\n\n",
    "scratchpad": "Here, go on until the machine halts and write every entry that follows the one given.\n\n",
    "commands": (
        "Here, go on until the machine halts and write only the command line of each entry that follows the one"
        " given, then the entry that the machine halts with.\n\n"
    ),
}
_NUMBERS = "umbers are reversed, units first, with | before each digit: 120 is |0|2|1"
ACTIONS = " and actions, done from left to right; the last one names the state to go to."
NO_COMMAND = f'"{HALT}"'
LAST_COMMAND = f"The last command line is {NO_COMMAND}"
LOOP_COMMAND = "at q0 it writes both registers and goes to q1; elsewhere"
LOOP_JOB = "put it where it belongs, go to the next state"


def basic(title: str, what: str, *, tapes: str, reads: str, states: str, result: str, actions: str, rules: str) -> str:
    """Return the paragraphs on a basic machine: what it does, its state line, its command line, its rules."""
    return (
        f"{title} is a Turing machine that {what}. You are its control: given the current entry of a run, you write"
        " the next one. An entry is a state line and a command line.\n\n"
        f"State line: {title}, the state, {tapes}. N{_NUMBERS}{reads} States: q0 start, {states}, qH halted with"
        f" {result} at the end of the line.\n\n"
        f"Command line: {actions}\n\n"
        f"Rules: {rules}\n\n"
        "Job: apply the command to the state line, then give the command that the new state calls for."
    )


def composer(
    title: str, what: str, *, algorithm: str, registers: str, states: str, command: str, calls: str, job: str
) -> str:
    """Return the paragraphs on a composer: what it does and how, its two lines, what a prompt quotes, its calls."""
    return (
        f"{title} is a machine that {what}. You are its control: given what stands now, you write what comes next.\n\n"
        f"Algorithm{algorithm}\n\n"
        f"State line: {title}, the state, operand 1 after [HEAD1], operand 2 after [HEAD2]{registers}. N{_NUMBERS}."
        f" States{states}; qH halted. Command line: {command} CMD [CALL], the machine to call and the state to go to"
        " when that machine has halted.\n\n"
        f"The prompt has two lines at q0 (state line, command line) and four lines otherwise: after {title}'s state"
        " line and its call come the called machine's last state line, with its result at the end, and"
        f" {NO_COMMAND} The answer is {title}'s new state line and command; if the command is a call, two further lines"
        f" give the initial state of the called machine and its first command. {calls}\n\n"
        f"Job: read the result of the called machine, {job}, give its command."
    )


def aligner(
    title: str, things: str, *, raw: str, registers: str, first: str, halted: str, write: str, more: str = ""
) -> str:
    """Return the paragraphs of the aligner: what an input and an output are, and what to write for each."""
    return (
        f"You translate between {things} {title}. The text below is an input or an output.\n\n"
        f"An input is {raw}. Write the entry that the machine starts with: the state line ({title}, state q0, the"
        f" operands after their heads [HEAD1] and [HEAD2], {registers}) and the first command line, which {first}."
        " An output is the entry that the machine halts with: the state line in state qH,"
        f" {halted} at the end of the line, then the line that says there is no command. Write {write}. The machine's"
        f" n{_NUMBERS}.{more}"
    )


@cache
def instruction(machine: Machine, view: str) -> str:
    """Return the instruction of a machine for a view; ASCII, ends with an empty line.

    A machine that brings no description of its own gets one sentence, so that the first training stage stays possible.
    """
    text = machine.instruction
    if view in ("aligner", "raw"):
        text = machine.aligner_instruction if view == "aligner" else machine.raw_instruction
    elif machine.shown_step is not None:
        text = f"{_wrapped(text)}Example. The entry\n{_step(machine, *machine.shown_step)}\n\n"
    if view == "aligner" and machine.shown_pair is not None:
        text = _wrapped(text) + _both_ways(machine, *machine.shown_pair)
    fallback = f"{machine.title} is a Turing machine: {' '.join((machine.__doc__ or machine.name).split())}\n\n"
    return (text or fallback) + VIEW_JOB.get(view, "")


def _wrapped(paragraphs: str) -> str:
    return "".join(f"{fill(paragraph, WIDTH)}\n\n" for paragraph in paragraphs.split("\n\n"))


def _step(machine: Machine, a: int, b: int, step: int) -> str:
    shown = machine.transition(a, b, step, "consistent")
    return f"{shown.prompt}is followed by\n{shown.completion.removesuffix(chr(10))}"


def _both_ways(machine: Machine, a: int, b: int) -> str:
    question, halted = f"{a}{machine.sign}{b}=", machine.halted(a, b).removesuffix("\n")
    return (
        f"Example of an input:\n{question}\nIts answer:\n{machine.initial(a, b)}\n"
        f"Example of an output:\n{halted}\nIts answer:\n{question}{machine.answer(a, b)}\n\n"
    )
