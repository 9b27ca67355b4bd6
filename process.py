"""A process of the command line: it starts with usable streams, and ends with an exit code and at most one message."""

import gc
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from .errors import UserError, quoted

# One thread is enough for the sums of the split function; a pool of them costs start-up time and fights the workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def run_and_leave(command: Callable[[], None]) -> NoReturn:
    """Run a command and end the process at once: taking its libraries apart would cost a tenth of a second."""
    gc.set_threshold(100_000)  # imports make a hundred thousand objects, and no garbage worth looking for
    code: object = 0
    try:
        command()
    except SystemExit as end:
        code = end.code
    if workers := sys.modules.get(f"{__package__}.pipelines.workers"):
        workers.remove_sockets()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code if isinstance(code, int) else int(code is not None))


def run_telling_errors(command: Callable[[], None]) -> None:
    """Run a command; print errors of the user's without a traceback, with exit code 2.

    Raises:
        SystemExit: the command ended, as every one of typer's does, or was refused.
    """
    try:
        _check_process()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
                stream.reconfigure(errors="backslashreplace")
        command()
    except UserError as error:
        _end(2, f"error: {error}")
    except KeyboardInterrupt:
        _end(130, "stopped")
    except BrokenPipeError:
        _silence(sys.stdout)
        _end(1)
    except OSError as error:  # a name too long, a folder that may not be written, output to a full disk
        if error.filename is None:
            _silence(sys.stdout)
        place = "" if error.filename is None else f"\n  where:   {quoted(os.fsdecode(error.filename), 300)}"
        _end(2, f"error: the system refuses: {error.strerror or error}{place}")


def _check_process() -> None:
    """Give a process that was started without input or error output one that leads nowhere.

    Raises:
        UserError: it has no standard output, or stands in no folder.
    """
    missing = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in missing:  # in their order, each takes the number that is free; else the next file that is opened does
        stream = open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8")
        os.set_inheritable(stream.fileno(), True)
        setattr(sys, name, stream)
    if "stdout" in missing:
        raise UserError("standard output is closed", next_step="end the command with > FILE, or > /dev/null")
    try:
        os.getcwd()
    except OSError:
        raise UserError("the current folder does not exist any more", next_step="cd to another one") from None


def _end(code: int, text: str = "") -> NoReturn:
    """End with an exit code, and say why, if there is still somebody to be told."""
    try:
        if text:
            print(text, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)
    sys.exit(code)


def _silence(stream: TextIO) -> None:
    """Send what a stream still holds nowhere: Python would fail on it again at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except io.UnsupportedOperation:  # it is no file
        pass
