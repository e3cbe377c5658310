"""Who may ask for what, and the answers.

    GET  /, /page.css, ...   the page: the files of `FILES`, read when the server starts
    GET  /settings           JSON: what fills holes, and the limits
    GET  /queue              JSON: how many come before the request with this X-Ticket; null: there is none
    POST /open               a picture file of any kind that is read -> the same as PNG: upright, 8-bit sRGB, on white
    POST /complete           a mask of X-Mask-Bytes bytes, then the picture file -> PNG

An error is JSON, {"error": a sentence}. All that is not the page needs the token, where there is one, as
`Authorization: Bearer TOKEN`; a POST needs the header `X-Inpaint-Fast: 1`, which pages of other origins cannot send
without being allowed to, and none is. `Host` has to name this server by an address, as "localhost" or by its own name,
since a name can be made to lead here by whoever owns it (DNS rebinding) and an address cannot.
"""

from __future__ import annotations

import hmac
import importlib.resources
import io
import ipaddress
import json
import re
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from torch import Tensor

from inpaint_fast._names import printable
from inpaint_fast.data.images import png_bytes
from inpaint_fast.serve.line import Line, LineFull, LineLeft
from inpaint_fast.serve.uploads import UploadError, hole_in, picture_of

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/painting.js": ("painting.js", "text/javascript; charset=utf-8"),
    "/server.js": ("server.js", "text/javascript; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
PNG, JSON = "image/png", "application/json; charset=utf-8"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
HEAD_SECONDS = 10
"""For a request's head to arrive."""
SLOWEST = 50_000
"""Bytes a second that a body has to come with, and an answer to be taken with, after the first `BODY_SECONDS`."""
BODY_SECONDS = 30
DRAIN_SECONDS = 3
"""For what a client still sends after it was refused: who is cut off while sending does not see the answer."""
CONNECTIONS = 64
HOST = re.compile(r"(?P<name>\[[\da-f:.]+\]|[\w.-]+)(:\d+)?", re.ASCII | re.IGNORECASE)
TICKET = re.compile(r"[\w-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Limits:
    """What a server takes."""

    max_bytes: int = 64 << 20
    """Of an upload: picture and mask."""
    max_pixels: int = 4096 * 4096
    """Of a picture; the browsers of phones paint on no more."""
    places: int = 8
    """In the line: one that is completed, the others wait."""


class Refusal(Exception):
    """A request that gets an error: its status and a sentence for the page."""

    def __init__(self, status: HTTPStatus, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Server(ThreadingHTTPServer):
    """The page and its answers, at a port; `serve_forever` runs it, `stop` cleans up.

    Args:
        complete: called by one thread at a time with a picture, uint8 (3, H, W), and its hole, bool (1, H, W), of which
            at least one pixel is hole and one is not; returns the completed picture, uint8 (3, H, W). A ValueError of
            it is shown to the user.
        filler: what fills the holes, in a few words for the page.
        host: the address to listen at, or a name of it.
        port: 0: any that is free.
        token: what a client has to know; None: nothing.
        limits: what is taken.

    Raises:
        OSError: the address is none of this machine, or the port is taken.
    """

    def __init__(
        self,
        complete: Callable[[Tensor, Tensor], Tensor],
        *,
        filler: str,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        folder = importlib.resources.files("inpaint_fast.serve")
        self.files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        self.complete, self.filler, self.token, self.limits = complete, filler, token, limits or Limits()
        self.names = {"localhost", host.lower(), socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
        self.opening, self.completing = Line(self.limits.places), Line(self.limits.places)
        self._connections = threading.BoundedSemaphore(CONNECTIONS)
        self.address_family, address = address_of(host, port)
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the network for the address's name, which may take long.
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def stop(self, seconds: float = 10) -> None:
        """Once `serve_forever` has ended, by KeyboardInterrupt or by `shutdown` from another thread: all who wait are
        sent away, and the one whose turn it is gets an answer, if it is there in so many seconds."""
        self.server_close()
        for line in (self.opening, self.completing):
            line.close(seconds)

    def say(self, text: str) -> None:
        """A line on the terminal."""
        print(f"{time.strftime('%H:%M:%S')}  {printable(text)}", file=sys.stderr, flush=True)

    def process_request(self, request: socket.socket, client_address: tuple) -> None:
        if not self._connections.acquire(blocking=False):  # an answer would take a thread
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: tuple) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: socket.socket, client_address: tuple) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that has gone is no news
            traceback.print_exc()


class Handler(BaseHTTPRequestHandler):
    """One connection, one request, one answer."""

    server: Server
    server_version, sys_version = "inpaint_fast", ""

    def setup(self) -> None:
        super().setup()
        self.incoming = Incoming(self.connection, HEAD_SECONDS)
        self.rfile = io.BufferedReader(self.incoming)
        self.unread = False  # a body that was not asked for

    def answer(self) -> None:
        """A request of any method."""
        self.unread = self.command not in ("GET", "HEAD")
        try:
            self._check_host()
            method, path = "GET" if self.command == "HEAD" else self.command, self.path
            if path not in self.server.files and path not in ROUTES:
                raise Refusal(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
            allowed, route = ROUTES.get(path, ("GET", None))
            if method != allowed:
                raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{allowed} is expected here.", Allow=allowed)
            if route is None:
                content, kind = self.server.files[path]
            else:
                self._check_token()
                if method == "POST":
                    self._check_origin()
                content, kind = route(self)
            self._send(HTTPStatus.OK, content, kind)
        except Refusal as refusal:
            self._send_error(refusal.status, str(refusal), refusal.headers)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # whatever PyTorch raises: the server lives on
            self.server.say(f"an error: {type(error).__name__}: {error}")
            sentence = "There is not enough memory for this picture."
            if not _lacks_memory(error):
                sentence = "It failed, for a reason that is told on the server's terminal."
            self._send_error(HTTPStatus.INTERNAL_SERVER_ERROR, sentence)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = answer

    # ---- the answers ----

    def settings(self) -> tuple[bytes, str]:
        limits = self.server.limits
        facts = {"filler": self.server.filler, "max_bytes": limits.max_bytes, "max_pixels": limits.max_pixels}
        return json.dumps(facts).encode(), JSON

    def queue(self) -> tuple[bytes, str]:
        ticket = self._ticket()
        places = (line.ahead(ticket) for line in (self.server.opening, self.server.completing))
        return json.dumps({"ahead": next((ahead for ahead in places if ahead is not None), None)}).encode(), JSON

    def open(self) -> tuple[bytes, str]:
        with self._in_line(self.server.opening) as bodies:
            (data,) = bodies()
            with self._turn(self.server.opening):
                return png_bytes(picture_of(data, self.server.limits.max_pixels)), PNG

    def complete(self) -> tuple[bytes, str]:
        with self._in_line(self.server.completing) as bodies:
            mask, data = bodies(self._count("X-Mask-Bytes"))
            with self._turn(self.server.completing):
                picture = picture_of(data, self.server.limits.max_pixels)
                hole = hole_in(mask, picture)
                began = time.monotonic()
                completed = self.server.complete(picture, hole)
                seconds, share = time.monotonic() - began, hole.float().mean().item()
                self.server.say(f"completed {hole.shape[2]} x {hole.shape[1]}, hole {share:.2%}, in {seconds:.2f} s")
                return png_bytes(completed), PNG

    # ---- who may ----

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host", [])
        host = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if host is None or not (host["name"].lower() in self.server.names or _is_address(host["name"].strip("[]"))):
            raise Refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                "This server is reached by its address, as localhost or by its own name, and not by this one.",
            )

    def _check_token(self) -> None:
        if self.server.token is None:
            return
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(errors="replace"), self.server.token.encode()):
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                "The token is missing or wrong: open the address that the server printed when it started.",
                WWW_Authenticate="Bearer",
            )

    def _check_origin(self) -> None:
        host = self.headers["Host"]
        origins = set(self.headers.get_all("Origin", []))
        if self.headers.get("X-Inpaint-Fast") != "1" or not origins <= {f"http://{host}", f"https://{host}"}:
            raise Refusal(HTTPStatus.FORBIDDEN, "Uploads are taken from this server's own page (X-Inpaint-Fast: 1).")

    # ---- bodies and turns ----

    @contextmanager
    def _in_line(self, line: Line) -> Iterator[Callable[..., list[bytes]]]:
        """A place in the line, and what reads the body: in pieces of the lengths given, and the rest."""
        if "Transfer-Encoding" in self.headers:
            raise Refusal(HTTPStatus.BAD_REQUEST, "Uploads in pieces (Transfer-Encoding) are not taken.")
        length, most = self._count("Content-Length"), self.server.limits.max_bytes
        if length > most:
            sentence = f"The upload has {length / 1e6:.1f} MB, and {most / 1e6:.1f} are taken here."
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
        try:
            with line.place():
                yield lambda *lengths: self._bodies(length, lengths)
        except LineFull:
            sentence = f"The line is full: {line.places} are in it. Try again in a minute."
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, sentence, Retry_After="30") from None
        except LineLeft:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The server is being stopped.") from None
        except UploadError as error:
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        except ValueError as error:  # of the completion
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"It cannot be completed: {error}.") from error

    def _bodies(self, length: int, lengths: tuple[int, ...]) -> list[bytes]:
        if sum(lengths) > length:
            raise Refusal(HTTPStatus.BAD_REQUEST, "X-Mask-Bytes: the upload is shorter than its mask.")
        self.incoming.deadline = time.monotonic() + BODY_SECONDS + length / SLOWEST
        try:
            bodies = [self.rfile.read(each) for each in (*lengths, length - sum(lengths))]
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "The upload came too slowly.") from None
        self.unread = False
        if sum(map(len, bodies)) < length:
            raise ConnectionError("the client left in the middle of its upload")
        return bodies

    def _turn(self, line: Line) -> AbstractContextManager[None]:
        return line.turn(self._ticket(), self._gone)

    def _gone(self) -> bool:
        """Whether the client has closed the connection."""
        self.connection.settimeout(0)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _ticket(self) -> str:
        ticket = self.headers.get("X-Ticket", "")
        return ticket if TICKET.fullmatch(ticket) else ""

    def _count(self, header: str) -> int:
        """A header that is a number of bytes."""
        values = self.headers.get_all(header, [])
        if len(values) != 1 or not re.fullmatch(r"[0-9]{1,15}", values[0]):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, f"{header}: one number of bytes is expected.")
        return int(values[0])

    # ---- sending ----

    def _send(self, status: HTTPStatus, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.connection.settimeout(BODY_SECONDS + len(content) / SLOWEST)
        self.send_response(status)
        for name, value in {**HEADERS, **(headers or {}), "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_error(self, status: HTTPStatus, sentence: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps({"error": sentence}).encode(), JSON, headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """An error that the standard library's server has found, in the form of ours."""
        self.unread = True
        self._send_error(HTTPStatus(code), f"{HTTPStatus(code).phrase}: this is no request that is understood here.")

    def finish(self) -> None:
        super().finish()
        if self.unread:
            self._drain()

    def _drain(self) -> None:
        """Read what was refused, and forget it."""
        self.incoming.deadline = time.monotonic() + DRAIN_SECONDS
        try:
            self.connection.shutdown(socket.SHUT_WR)
            while self.incoming.read(1 << 16):
                pass
        except OSError:
            pass

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: what is worth a line is said where it happens."""


ROUTES = {
    "/settings": ("GET", Handler.settings),
    "/queue": ("GET", Handler.queue),
    "/open": ("POST", Handler.open),
    "/complete": ("POST", Handler.complete),
}


class Incoming(io.RawIOBase):
    """What a client sends, until a deadline (`time.monotonic`), which many a small piece does not move."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self.connection, self.deadline = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the client is too slow")
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


def address_of(host: str, port: int = 0) -> tuple[socket.AddressFamily, tuple]:
    """The address family and the socket address of a host. Raises OSError where there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"host: an address of this machine is expected, got {host!r} ({error})") from error
    return found[0][0], found[0][4]


def is_loopback(host: str) -> bool:
    """Whether who listens at this host is reached from this machine alone. Raises OSError as `address_of`."""
    return ipaddress.ip_address(address_of(host)[1][0].partition("%")[0]).is_loopback


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "memory" in str(error).lower()
