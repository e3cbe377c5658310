"""A server in a thread, requests to it, and pictures for them."""

from __future__ import annotations

import io
import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from inpaint_fast.completion import complete
from inpaint_fast.serve import Server

SECONDS = 300
"""For an answer: another program may have the processor."""
SIZE = (40, 56)
"""Height and width of `PICTURE`."""


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes
    headers: Any

    @property
    def error(self) -> str:
        """The sentence of an error; that it is one, and can be nothing else for a browser, is asserted."""
        assert self.status >= 400 and self.headers["Content-Type"].startswith("application/json")
        assert self.headers["X-Content-Type-Options"] == "nosniff" and "Access-Control-Allow-Origin" not in self.headers
        (sentence,) = json.loads(self.content).values()
        assert sentence[0].isupper() and sentence.endswith((".", "?"))
        return sentence

    @property
    def pixels(self) -> np.ndarray:
        assert self.status == 200 and self.headers["Content-Type"] == "image/png", self
        return np.asarray(Image.open(io.BytesIO(self.content)))


class Running:
    """A server that runs in a thread, and what is asked of it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self, seconds: float = 10) -> None:
        self.server.shutdown()
        self.server.stop(seconds)
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def ask(self, path: str, body: bytes | None = None, *, method: str | None = None, **headers: str) -> Answer:
        """One request; headers by their names with _ for -; X-Inpaint-Fast is there unless it is given."""
        given = {"X-Inpaint-Fast": "1", **{name.replace("_", "-"): value for name, value in headers.items()}}
        request = urllib.request.Request(f"http://{self.netloc}{path}", body, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return Answer(answer.status, answer.read(), answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), error.headers)

    def complete(self, mask: bytes, picture: bytes, **headers: str) -> Answer:
        return self.ask("/complete", mask + picture, **{"X_Mask_Bytes": str(len(mask)), **headers})

    def assert_alive(self) -> None:
        """It completes a picture, as the package does."""
        assert (self.complete(MASK, PICTURE).pixels == COMPLETED.permute(1, 2, 0).numpy()).all()


def file_of(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def mask_of(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    return mask


HARMONIC = partial(complete, fill="harmonic")
PICTURE, MASK = file_of(noise(*SIZE)), file_of(mask_of(*SIZE))


COMPLETED = HARMONIC(torch.from_numpy(noise(*SIZE)).permute(2, 0, 1), torch.from_numpy(mask_of(*SIZE))[None] > 0)
