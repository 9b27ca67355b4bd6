"""The command line as a process: ``caef-data``, ``python -m caef_data``. Workers import it: nothing heavy above."""

import sys
from typing import NoReturn

from .process import run_and_leave, run_telling_errors


def run() -> NoReturn:
    """Run the command line as a process, which ends with it."""

    def command() -> None:
        if sys.argv[1:2] == ["build"]:  # its workers start while this process imports, reads options and plans
            from .pipelines.workers import start_fork_server

            start_fork_server()
        from .cli import app

        app()

    run_and_leave(lambda: run_telling_errors(command))


if __name__ == "__main__":
    run()
