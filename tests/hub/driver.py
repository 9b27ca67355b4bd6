"""The client process of ``Client``: runs one function per line of its input, and answers with a line of JSON."""

import json
import os
import sys
import traceback


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def main() -> None:
    """Answer calls until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print goes elsewhere
    for line in sys.stdin:
        source, name, args, options = json.loads(line)
        try:
            namespace: dict = {}
            exec("from __future__ import annotations\n" + source, namespace)
            answer = {"value": namespace[name](*args, **options)}
        except Exception as error:
            chain = []
            while error is not None:
                chain.append(error)
                error = error.__cause__ or error.__context__
            status = next(filter(None, map(_status, chain)), None)
            answer = {"error": [traceback.format_exc(), [type(one).__name__ for one in chain], status]}
        print(json.dumps(answer, default=repr), file=answers, flush=True)


if __name__ == "__main__":
    main()
