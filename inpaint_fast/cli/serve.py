"""inpaint-fast serve"""

from __future__ import annotations

import errno
import re
import secrets
import signal
import socket
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from inpaint_fast._devices import device_of
from inpaint_fast.cli._options import parse
from inpaint_fast.completion import complete, load_network
from inpaint_fast.completion.generators import kind_of, placed
from inpaint_fast.completion.weights import SHIPPED
from inpaint_fast.data.images import MAX_PIXELS
from inpaint_fast.serve import Limits, Server
from inpaint_fast.serve.server import address_of, is_loopback

TOKEN = re.compile(r"[\w.~-]{8,}", re.ASCII)


@dataclass(kw_only=True)
class Serve:
    """A web page with a brush: open a picture, paint over what should go, complete it, compare, save.

    The page is for this machine alone unless --host says otherwise, and then for those who have the token that is
    printed. Pictures stay in memory and are forgotten with the answer; nothing is written.
    """

    weights: Path | None = None
    """A run's folder or its generator.safetensors; or weights of the package, "sharp" (the default) or "smooth"."""
    fill: Literal["harmonic", "ring_mean"] | None = None
    """Instead of weights: Laplace's equation from the border of the hole, or the mean colour of the pixels round all
    holes."""
    device: str = "cpu"
    """Where the generator or the fill runs: "auto" (the first GPU if there is one), "cpu", "cuda", "cuda:1"."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0 for all that this machine has. The connection is not encrypted."""
    port: int = 8000
    """Its port; 0: any that is free."""
    token: str | None = None
    """What a browser has to know: at least 8 letters, digits and -._~. Without it a random one is made for a host that
    other machines reach, and none for this machine alone."""
    max_bytes: int = Limits.max_bytes
    """Of an upload, the picture's file with its mask."""
    max_pixels: int = Limits.max_pixels
    """Of a picture."""
    open: bool = False
    """Open the page in a browser."""


def main(argv: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    options = parse(Serve, "inpaint-fast serve", argv)
    check(options)
    complete_hole, filler = completion_of(options)
    token = options.token
    if token is None and not is_loopback(options.host):
        token = secrets.token_urlsafe(16)
    server = server_of(options, complete_hole, filler, token)
    url = url_of(server, options.host, token)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a service manager: the same as Ctrl-C
    print(f"{url}  ({filler}; Ctrl-C ends it)", flush=True)
    if options.open:
        webbrowser.open(url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.say("stopping")
    finally:
        server.stop()
        signal.signal(signal.SIGTERM, before)
    return 0


def check(options: Serve) -> None:
    """Raise ValueError where a number or the token cannot be meant."""
    for name, least, most in (("port", 0, 65535), ("max_bytes", 1, 1 << 40), ("max_pixels", 1, MAX_PIXELS)):
        value = getattr(options, name)
        if not least <= value <= most:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}: a number from {least:,} to {most:,} is expected, got {value}")
    if options.token is not None and not TOKEN.fullmatch(options.token):
        raise ValueError("--token: at least 8 letters, digits and -._~ are expected")
    if options.weights is not None and options.fill is not None:
        raise ValueError("--weights and --fill: one of them is expected, got both")


def completion_of(options: Serve) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """What completes a picture, and its name for the page."""
    device = device_of(options.device)
    if options.fill is not None:
        return partial(complete, fill=options.fill, device=device), f"fill: {options.fill}"
    weights = options.weights or Path(SHIPPED[0])
    generator = placed(load_network(weights), device)
    kind_of(generator)  # ValueError: it completes no pictures
    if generator.reads_captions:
        raise ValueError(
            "--weights: this generator reads captions, for which the page has no place; "
            "inpaint-fast complete --caption takes them"
        )
    return partial(complete, weights=generator), f"weights: {weights.name}"


def server_of(
    options: Serve, complete_hole: Callable[[Tensor, Tensor], Tensor], filler: str, token: str | None
) -> Server:
    """The server, its port taken. Raises OSError, which names the option, where it cannot be."""
    limits = Limits(max_bytes=options.max_bytes, max_pixels=options.max_pixels)
    try:
        return Server(complete_hole, filler=filler, host=options.host, port=options.port, token=token, limits=limits)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            taken = f"--port: {options.port} is taken by another program; --port 0 takes any that is free"
            raise OSError(taken) from error
        raise OSError(f"--host, --port: nothing can listen at {options.host}:{options.port} ({error})") from error


def url_of(server: Server, host: str, token: str | None) -> str:
    """The page's address. The token is in the part that browsers keep to themselves."""
    if address_of(host)[1][0] in ("0.0.0.0", "::"):
        host = own_address()
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{server.server_port}/" + (f"#{token}" if token else "")


def own_address() -> str:
    """The address that other machines reach this one at, by the route to the world; nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # an address for documentation (RFC 5737)
            return probe.getsockname()[0]
    except OSError:  # no route
        return socket.gethostname()
