"""An S3 server on 127.0.0.1, moto's, that logs what it is asked, fails on demand, and knows who left this machine."""

import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import unquote

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

SECRET = "a-secret-that-nobody-may-see"
BUCKET = "bucket"
CODES = {403: "AccessDenied", 500: "InternalError", 501: "NotImplemented", 503: "SlowDown"}
_contacted: list[str] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(args[1], tuple):
        _contacted.append(args[1][0])


sys.addaudithook(_watch)


class Request(NamedTuple):
    """What was asked: list, get, head, put, copy, delete; and the object's path, bucket included."""

    kind: str
    path: str


@dataclass
class Fault:
    """Goes wrong with requests of a kind, for paths that a pattern is found in.

    ``what``: a status; ``drop``: no answer; ``lost``: no answer, but the work is done; ``corrupt``, ``cut``: another
    body arrives; or a function that is called with the request before it is served.
    """

    kind: str
    what: int | str | Callable[[Request], None]
    path: str = ""
    times: int = 1
    after: int = 0


@dataclass
class S3Server:
    """The server; ``log`` and ``faults`` are the tests' to read and change."""

    log: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __enter__(self) -> "S3Server":
        self.app, self.lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
        self.server = make_server("127.0.0.1", 0, self.serve, threaded=True, request_handler=_Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.reset()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()

    def reset(self) -> None:
        """Forget everything but an empty bucket."""
        self.backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self.backend.reset()
        self.backend.create_bucket(BUCKET, "us-east-1")
        self.log.clear()
        self.faults.clear()
        _contacted.clear()

    @property
    def env(self) -> dict[str, str]:
        """The environment by which a client finds the server, and nothing else."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "*",
        }

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Return what lies below a prefix of the bucket, by the path that follows it."""
        keys = self.backend.buckets[BUCKET].keys
        return {name.removeprefix(prefix): keys[name].value for name in list(keys) if name.startswith(prefix)}

    def put(self, path: str, content: bytes) -> None:
        """Put an object into the bucket, past the server."""
        self.backend.put_object(BUCKET, path, content)

    def counts(self) -> Counter[str]:
        """Return how often each kind of request was made since the log was cleared."""
        return Counter(request.kind for request in self.log)

    def check(self) -> None:
        """Check what must hold after every test."""
        assert set(_contacted) <= {"127.0.0.1"}, "somebody left this machine"
        assert [fault for fault in self.faults if fault.times] == [], "a fault hit nothing"

    def serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, or do what a fault says."""
        kind = environ["REQUEST_METHOD"].lower()
        if kind == "get" and "list-type" in environ["QUERY_STRING"]:
            kind = "list"
        elif kind == "put" and "HTTP_X_AMZ_COPY_SOURCE" in environ:
            kind = "copy"
        request = Request(kind, unquote(environ["PATH_INFO"]).lstrip("/"))
        if environ["QUERY_STRING"] and kind == "list":
            prefix = re.search(r"(?:^|&)prefix=([^&]*)", environ["QUERY_STRING"])
            request = Request(kind, f"{request.path}/{unquote(prefix[1]) if prefix else ''}")
        with self.lock:
            self.log.append(request)
            fault = self._fault(request)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if isinstance(fault, int):
            text = f"<Error><Code>{CODES[fault]}</Code><Message>not with {SECRET}</Message></Error>".encode()
            start(f"{fault} {CODES[fault]}", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
            return [] if kind == "head" else [text]
        if callable(fault):
            fault(request)
        elif fault == "corrupt":
            body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
        elif fault == "cut":
            body = body[:-1]
            environ["CONTENT_LENGTH"] = str(len(body))
        elif fault == "drop":
            raise ConnectionError
        answer = self.app({**environ, "wsgi.input": BytesIO(body)}, start)
        if fault == "lost":
            raise ConnectionError
        return answer

    def _fault(self, request: Request) -> Any:
        for fault in self.faults:
            if fault.times and fault.kind == request.kind and re.search(fault.path, request.path):
                if fault.after:
                    fault.after -= 1
                else:
                    fault.times -= 1
                    return fault.what
        return None


class _Handler(MotoRequestHandler):
    """Logs nothing, and hangs up without a word where serving raises a ``ConnectionError``."""

    def connection_dropped(self, error: BaseException, environ: object = None) -> None:
        self.close_connection = True

    def log(self, *args: object) -> None:
        pass
