"""The sockets: reads requests, lets them be served, sends answers, and hangs up where a fault says so."""

import select
import socket
import struct
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .faults import SPOIL, Fault
from .wire import TABLE, Answer, Record, Refusal, Request

if TYPE_CHECKING:
    from .server import HubServer


class Listener(ThreadingHTTPServer):
    """Listens on 127.0.0.1 from when it is made until it is closed.

    Args:
        hub: what it serves.
        port: the port; 0 takes a free one.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, hub: "HubServer", port: int) -> None:
        self.hub = hub
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and hang up on everyone."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has just ended by itself

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away
            self.hub.errors.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def log_message(self, *args: object) -> None:  # the log is ours
        pass

    def _serve(self) -> None:
        hub = self.server.hub
        path, _, query = self.path.partition("?")
        matches = ((one.name, one.match(self.command, path)) for one in TABLE.values())
        name, groups = next(((name, found) for name, found in matches if found is not None), (None, {}))
        fault = hub.faults.take(self.command, path) or Fault("", "", "meanwhile")  # that is: none
        record = Record(name, self.command, path, fault=None if fault.kind == "meanwhile" else fault.kind)
        answer = None
        try:
            if fault.kind == "reset":
                fault.action()
                return self._reset()
            body = self._read_body()
            record.received = len(body)
            request = Request(hub, self.command, path, query, self.headers, body, SPOIL.get(str(fault.kind)))
            answer = self._work(fault, name, groups, request)
        finally:
            if answer is not None:
                record.status = answer.status
                record.sent = 0 if self.command == "HEAD" else len(answer.encode()[0])
            hub.log.append(record)
        if answer is not None:
            self._send(answer, request)
        else:
            self.close_connection = True
            if fault.kind == "stall":
                self._stall()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _read_body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            raise NotImplementedError("no client sent a body in chunks so far")
        size = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionResetError("the client went away in the middle of a body")
        return data

    def _work(self, fault: Fault, name: str | None, groups: dict[str, Any], request: Request) -> Answer | None:
        if fault.kind != "lost":
            fault.action()
        if fault.kind in ("drop", "stall"):
            return None
        if isinstance(fault.kind, int):
            return _refused(fault, fault.kind, request)
        answer = self._answer(name, groups, request)
        if fault.kind == "lost":
            fault.action()
            return None
        return answer

    def _answer(self, name: str | None, groups: dict[str, Any], request: Request) -> Answer:
        try:
            if name is None:
                raise Refusal(404, f"no such endpoint: {request.method} {request.path}")
            with request.hub.lock:
                answer = TABLE[name].handler(request, **groups)
            return answer if isinstance(answer, Answer) else Answer(answer)
        except Refusal as refusal:
            return refusal.answer
        except Exception:
            request.hub.errors.append(traceback.format_exc())
            return Answer({"error": "the test server failed"}, 500)

    def _send(self, answer: Answer, request: Request) -> None:
        body, headers = answer.encode()
        length = len(body)
        if request.spoil is not None:  # nothing was stored: the fault hits the answer
            body = request.spoil(body)
        self.send_response(answer.status)
        for header, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)
        if len(body) < length:
            self.close_connection = True

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()  # the last reference to the socket: now the RST goes out

    def _stall(self) -> None:
        end = time.monotonic() + self.server.hub.stall_limit
        while time.monotonic() < end and not self.server.closing.is_set():
            if select.select([self.connection], [], [], 0.05)[0]:  # nothing but its end comes from a waiting client
                return


def _refused(fault: Fault, status: int, request: Request) -> Answer:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    message = fault.message.replace("{authorization}", request.headers.get("Authorization", ""))
    return Refusal(status, message, fault.code, headers=headers).answer
