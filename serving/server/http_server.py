"""The HTTP/1.1 side: keep-alive connections, a body limit, and a stop that loses no request.

A thread a connection (`ThreadingHTTPServer`): right for development, not for the open internet.
"""

from __future__ import annotations

import contextlib
import http.server
import logging
import selectors
import socket
import socketserver
import threading
import time
import zlib
from typing import ClassVar

from serving.server.rest_api import Reply, RestApi
from serving.server.rest_json.responses import error_response

__all__ = ["HttpServer"]

logger = logging.getLogger(__name__)

_READ_TIMEOUT_S = 60.0
"""How long a client may pause inside a request; between requests it may be silent for ever."""


_MAX_DISCARDED_BYTES = 64 * 1024 * 1024


class HttpServer:
    """Serves a RestApi on a port.

    Args:
        api: answers the requests.
        host, port: where to listen; port 0 takes a free one, see `port`.
        max_request_bytes: a longer body, also after gunzip, is refused with 413.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, api: RestApi, host: str, port: int, *, max_request_bytes: int) -> None:
        self._server = _Server((host, port), api, max_request_bytes)
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

    def __init__(self, address: tuple[str, int], api: RestApi, max_request_bytes: int) -> None:
        self.api, self.max_request_bytes = api, max_request_bytes
        self.draining = False
        # Readable once the server stops: wakes the handlers that wait for a next request.
        self.stop_signal, self._stop_sender = socket.socketpair()
        self._open = threading.Condition()
        self._num_open = 0
        self._queue_empty = False
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look its own name up in the DNS, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

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


class _TooLargeError(Exception):
    pass


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "clickparity-development-server"
    sys_version = ""
    disable_nagle_algorithm = True  # a small answer must not wait for the client's ACK
    wbufsize = -1  # headers and body leave in one packet; the base class flushes
    error_content_type = "application/json"
    error_message_format = '{"error": "%(message)s"}'
    timeout: ClassVar[float] = _READ_TIMEOUT_S

    def handle(self) -> None:
        self.close_connection = False
        while not self.close_connection and self._wait_for_request():
            self.handle_one_request()

    def _wait_for_request(self) -> bool:
        """Whether a request (or the client's end) has come; False when the server stops first."""
        self.connection.setblocking(False)
        try:
            if self.rfile.peek(1):  # type: ignore[attr-defined]
                return True  # sent together with the one before
        finally:
            self.connection.settimeout(self.timeout)
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            selector.register(self.server.stop_signal, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select()]
        return self.connection in ready

    def _serve(self) -> None:
        try:
            body = self._read_body()
        except _TooLargeError as error:
            self.close_connection = True  # the rest of the body is still on its way
            self._send(Reply(413, error_response(str(error))))
            self._discard_rest()
            return
        except ValueError as error:
            self.close_connection = True
            self._send(Reply(400, error_response(str(error))))
            return
        self._send(self.server.api.answer(self.command, self.path, body))

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = _serve  # noqa: N815

    def _send(self, reply: Reply) -> None:
        if self.server.draining:
            self.close_connection = True
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
            self.connection.settimeout(1.0)
            for _ in range(_MAX_DISCARDED_BYTES // 65536):
                if not self.connection.recv(65536):
                    break

    def _read_body(self) -> bytes:
        """The body, unchunked and gunzipped.

        Raises:
            _TooLargeError: over the limit.
            ValueError: lengths or encodings that make no sense.
        """
        limit = self.server.max_request_bytes
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = self._read_chunks(limit)
        else:
            text = self.headers.get("Content-Length", "0").strip()
            if not text.isascii() or not text.isdigit():
                raise ValueError(f"Malformed Content-Length: {text}")
            body = self._read_exactly(int(text[:30]), limit)
        if "gzip" in self.headers.get("Content-Encoding", "").lower():
            unzip = zlib.decompressobj(wbits=31)
            try:
                body = unzip.decompress(body, limit + 1)
            except zlib.error as error:
                raise ValueError(f"Failed to uncompress the gzipped body: {error}") from None
            if len(body) > limit:
                raise _too_large(len(body), limit)
        return body

    def _read_exactly(self, length: int, limit: int) -> bytes:
        if length > limit:
            raise _too_large(length, limit)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ValueError(f"The body ended after {len(body)} of {length} bytes")
        return body

    def _read_chunks(self, limit: int) -> bytes:
        body = bytearray()
        while True:
            line = self.rfile.readline(1000).split(b";")[0].strip()
            try:
                size = int(line, 16)
            except ValueError:
                raise ValueError(f"Malformed chunk size: {line[:20]!r}") from None
            if size < 0:
                raise ValueError(f"Malformed chunk size: {size}")
            body += self._read_exactly(size, limit - len(body))
            line = self.rfile.readline(1000)  # ends the chunk; after the last one, the trailers
            while size == 0 and line.strip():
                line = self.rfile.readline(1000)
            if size == 0:
                return bytes(body)

    def log_message(self, format: str, *args: object) -> None:
        logger.debug("%s %s", self.address_string(), format % args)


def _too_large(size: int, limit: int) -> _TooLargeError:
    return _TooLargeError(f"Request of {size} bytes is larger than the limit of {limit} bytes")
