"""The HTTP/1.1 side: keep-alive connections, limits, and a stop that loses no request.

A thread a connection (`ThreadingHTTPServer`): right for development, not for the open internet. What
one client can hold is bounded all the same: a connection, by two deadlines; memory, by the largest
body and by the number of large ones that are worked on at once.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import logging
import selectors
import socket
import socketserver
import threading
import time
import zlib
from collections.abc import Iterator

from serving.server.rest_api import Reply, RestApi, error_page
from serving.server.rest_json.responses import error_response

__all__ = ["HttpServer"]

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 60.0
"""How long a request may take to arrive, first byte to last, and its answer to be taken."""
IDLE_TIMEOUT_S = 600.0
"""How long a connection may be silent between requests."""
_MAX_CONNECTIONS = 512
_LARGE_BYTES = 1 << 20
"""A body above this, or one that is zipped, is large ..."""
_NUM_LARGE = 2
"""... and so many are parsed and answered at once: each may take ten times its bytes."""
_DISCARD_S = 5.0


class HttpServer:
    """Serves a RestApi on a port.

    Args:
        api: answers the requests.
        host, port: where to listen; port 0 takes a free one, see `port`.
        max_request_bytes: a longer body, also after gunzip, is refused with 413.
        request_timeout_s: for a request to arrive, first byte to last, else 408; for its answer too.
        idle_timeout_s: a connection that is silent for longer between requests is closed.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        api: RestApi,
        host: str,
        port: int,
        *,
        max_request_bytes: int,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self._server = _Server((host, port), api, max_request_bytes)
        self._server.request_timeout_s = request_timeout_s
        self._server.idle_timeout_s = idle_timeout_s
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="rest", kwargs={"poll_interval": 0.1}
        )

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Answers every request that a client has sent so far, within `grace_s`; then closes."""
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.drain(grace_s)
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    request_timeout_s = REQUEST_TIMEOUT_S
    idle_timeout_s = IDLE_TIMEOUT_S

    def __init__(self, address: tuple[str, int], api: RestApi, max_request_bytes: int) -> None:
        self.api, self.max_request_bytes = api, max_request_bytes
        self.draining = False
        # Readable once the server stops: wakes the handlers that wait for a next request.
        self.stop_signal, self._stop_sender = socket.socketpair()
        self._open = threading.Condition()
        self._num_open = 0
        self._large = threading.BoundedSemaphore(_NUM_LARGE)
        self._queue_empty = False
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look its own name up in the DNS, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def verify_request(self, request: object, client_address: object) -> bool:
        """Whether there is room for one more connection; one more than the most is closed."""
        return self._num_open < _MAX_CONNECTIONS

    @contextlib.contextmanager
    def turn(self, *, large: bool, timeout_s: float) -> Iterator[None]:
        """Waits until a large request may be worked on.

        Raises:
            _RefusedError: 503, not in time.
        """
        if large and not self._large.acquire(timeout=timeout_s):
            raise _RefusedError(503, f"Too many requests of more than {_LARGE_BYTES} bytes at once")
        try:
            yield
        finally:
            if large:
                self._large.release()

    def process_request(self, request: object, client_address: object) -> None:
        with self._open:
            self._num_open += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            with self._open:
                self._num_open -= 1
                self._open.notify_all()

    def handle_timeout(self) -> None:
        self._queue_empty = True

    def handle_error(self, request: object, client_address: object) -> None:
        logger.debug("connection from %s broke", client_address, exc_info=True)

    def drain(self, grace_s: float) -> None:
        self.draining = True  # from here on an answer closes its connection
        # What the kernel has accepted is answered too. No more than its queue holds: clients that
        # come back at once would keep an unbounded loop, and with it the server, going for ever.
        self.timeout = 0
        for _ in range(self.request_queue_size):
            if self._queue_empty:
                break
            self.handle_request()
        self.socket.close()  # from here on a client is refused, which it may take elsewhere
        self._stop_sender.send(b"x")
        deadline = time.monotonic() + grace_s
        with self._open:
            while self._num_open and (left := deadline - time.monotonic()) > 0:
                self._open.wait(left)
            if self._num_open:
                logger.warning("%d connections were cut after %g s", self._num_open, grace_s)

    def server_close(self) -> None:
        super().server_close()
        self._stop_sender.close()
        if not self._num_open:  # a handler that was cut still looks at it
            self.stop_signal.close()


class _RefusedError(Exception):
    """The body cannot be read; what has come of it ends the connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class _TimedStream(io.RawIOBase):
    """A socket with one deadline for all that is read and written, however slowly it comes.

    Without a deadline only what is there already is read.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline: float | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def time_left(self) -> float:
        """Seconds; TimeoutError when there are none."""
        if self.deadline is None:
            return 0.0
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the request has passed")
        return left

    def readinto(self, buffer: bytearray) -> int | None:  # type: ignore[override]
        self._connection.settimeout(self.time_left())
        try:
            return self._connection.recv_into(buffer)
        except BlockingIOError:
            return None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._connection.settimeout(self.time_left())
        return self._connection.send(data)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "clickparity-development-server"
    sys_version = ""

    def setup(self) -> None:
        self.connection = self.request
        # A small answer must not wait for the client's ACK.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.stream = _TimedStream(self.connection)
        self.rfile = io.BufferedReader(self.stream)  # type: ignore[type-var]
        # Headers and body leave in one packet; the base class flushes.
        self.wfile = io.BufferedWriter(self.stream)  # type: ignore[type-var]

    def handle(self) -> None:
        self.close_connection = False
        while not self.close_connection and self._wait_for_request():
            self.handle_one_request()

    def _wait_for_request(self) -> bool:
        """Whether a request (or the client's end) has come; False when the server stops first."""
        self.stream.deadline = None
        ready: list[object] = [self.connection] if self.rfile.peek(1) else []  # type: ignore[attr-defined]
        if not ready:  # else it was sent together with the one before
            with selectors.DefaultSelector() as selector:
                selector.register(self.connection, selectors.EVENT_READ)
                selector.register(self.server.stop_signal, selectors.EVENT_READ)
                events = selector.select(self.server.idle_timeout_s)
                ready = [key.fileobj for key, _ in events]
        self._start_clock()
        return self.connection in ready

    def _start_clock(self) -> None:
        self.stream.deadline = time.monotonic() + self.server.request_timeout_s

    def handle_expect_100(self) -> bool:
        """Sent at once: the client waits for it with the body."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no HTTP gets the page that TF Serving's HTTP library sends."""
        self.close_connection = True
        self._send(error_page(code))

    def _serve(self) -> None:
        # As it was sent: the base class takes slashes off `self.path`.
        target = self.requestline.split()[1]
        try:
            body = self._read_body()
            zipped = "gzip" in self.headers.get("Content-Encoding", "")  # its case counts there too
            large = zipped or len(body) > _LARGE_BYTES
            with self.server.turn(large=large, timeout_s=self.stream.time_left()):
                if zipped:
                    body = _gunzip(body, self.server.max_request_bytes)
                origin = self.headers.get("Origin", "")
                reply = self.server.api.answer(self.command, target, body, origin)
        except _RefusedError as refused:
            self._refuse(refused.status, refused.message)
        except TimeoutError:
            seconds = self.server.request_timeout_s
            self._refuse(408, f"The request must arrive within {seconds:g} s")
        else:
            self._send(reply)

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True  # the rest of the body may still be on its way
        self._send(Reply(status, error_response(message)))
        self._discard_rest()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = _serve  # noqa: N815

    def _send(self, reply: Reply) -> None:
        if self.server.draining:
            self.close_connection = True
        self._start_clock()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def _discard_rest(self) -> None:
        """Reads on for a while: a client that is cut off while it sends never sees the answer."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.stream.deadline = time.monotonic() + _DISCARD_S
            while self.rfile.read1(65536):
                pass

    def _read_body(self) -> bytes:
        """The body, unchunked.

        Raises:
            _RefusedError: 413, over the limit; 400, lengths that make no sense.
            TimeoutError: it does not come in time.
        """
        limit = self.server.max_request_bytes
        lengths = self.headers.get_all("Content-Length", [])
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        if len(lengths) + chunked > 1:  # two readers of one connection would take different ends
            raise _RefusedError(400, "A request must state the length of its body once")
        if chunked:
            return self._read_chunks(limit)
        text = lengths[0].strip() if lengths else "0"
        if not text.isascii() or not text.isdigit():
            raise _RefusedError(400, f"Malformed Content-Length: {text}")
        return self._read_exactly(int(text[:30]), limit)

    def _read_exactly(self, length: int, limit: int) -> bytes:
        if length > limit:
            raise _too_large(length, limit)
        body = self.rfile.read(length)
        if len(body) < length:
            raise _RefusedError(400, f"The body ended after {len(body)} of {length} bytes")
        return body

    def _read_chunks(self, limit: int) -> bytes:
        body = bytearray()
        while True:
            line = self.rfile.readline(1000).split(b";")[0].strip()
            try:
                size = int(line, 16)
            except ValueError:
                raise _RefusedError(400, f"Malformed chunk size: {line[:20]!r}") from None
            if size < 0:
                raise _RefusedError(400, f"Malformed chunk size: {size}")
            body += self._read_exactly(size, limit - len(body))
            line = self.rfile.readline(1000)  # ends the chunk; after the last one, the trailers
            while size == 0 and line.strip():
                line = self.rfile.readline(1000)
            if size == 0:
                return bytes(body)

    def log_message(self, format: str, *args: object) -> None:
        logger.debug("%s %s", self.address_string(), format % args)


def _gunzip(body: bytes, limit: int) -> bytes:
    """What `body` unpacks to; nothing if it is not one whole gzip member, as in TF Serving."""
    unzip = zlib.decompressobj(wbits=31)
    try:
        unpacked = unzip.decompress(body, limit + 1)
    except zlib.error:
        return b""
    if len(unpacked) > limit:
        raise _too_large(len(unpacked), limit)
    return unpacked if unzip.eof and not unzip.unused_data else b""


def _too_large(size: int, limit: int) -> _RefusedError:
    message = f"Request of {size} bytes is larger than the limit of {limit} bytes"
    return _RefusedError(413, message)
