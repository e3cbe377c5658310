"""The pictures of docs/serve.md: the page at work, by a Chromium that is installed. `python docs/screenshots.py`."""

from __future__ import annotations

import io
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image

from inpaint_fast.completion import complete
from inpaint_fast.serve import Server

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))
from serve.browser import Browser  # noqa: E402

PHOTO = DOCS.parent / "inpaint_fast/data/samples/photos/train/rocket_launch_pad.jpg"
MASTS = [[(0.313, 0.28), (0.308, 0.55), (0.302, 0.86)], [(0.701, 0.27), (0.704, 0.55), (0.706, 0.84)]]


def painted(browser: Browser, url: str, **window: int | bool) -> None:
    """Open the photograph in a window of this size and paint over its two masts."""
    browser.go(url, **window)
    browser.choose_file("#file", PHOTO)
    browser.wait("document.body.dataset.mode === 'painting'")
    for mast in MASTS:
        (browser.touch if window.get("touch") else browser.drag)(browser.places("#sheet", mast))


def shot(browser: Browser, name: str) -> None:
    picture = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(DOCS / name, optimize=True)


def main() -> None:
    server = Server(complete, filler="weights: sharp", port=0)
    threading.Thread(target=server.serve_forever).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(Path(folder))
        painted(browser, url, width=960, height=640)
        shot(browser, "serve.png")
        painted(browser, url, width=360, height=640, touch=True)
        browser.click("#complete")
        browser.wait("document.body.dataset.mode === 'comparing'")
        browser.drag(browser.places("#sheet", [(0.5, 0.5), (0.55, 0.5)]))
        shot(browser, "serve_phone.png")
        browser.close()
    server.shutdown()
    server.stop()


if __name__ == "__main__":
    main()
