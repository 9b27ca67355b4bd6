"""The column ``instruction``: a machine's own description, and what a view asks of the reader."""

from .machine import Machine

VIEW_JOB = {
    "full": "Here, go on until the machine halts and write only the entry that it halts with.\n\n",
    "scratchpad": "Here, go on until the machine halts and write every entry that follows the one given.\n\n",
    "commands": (
        "Here, go on until the machine halts and write only the command line of each entry that follows the one"
        " given, then the entry that the machine halts with.\n\n"
    ),
}


def instruction(found: Machine, view: str) -> str:
    """Return the instruction of a machine for a view; ASCII, ends with an empty line.

    A machine that brings no description of its own gets one sentence, so that the first training stage stays possible.
    """
    fallback = f"{found.title} is a Turing machine: {' '.join((found.__doc__ or found.name).split())}\n\n"
    if view == "aligner":
        return found.aligner_instruction or fallback
    if view == "raw":
        return found.raw_instruction or fallback
    return (found.instruction or fallback) + VIEW_JOB.get(view, "")
