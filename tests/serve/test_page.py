"""The page in a browser: a brush that is really dragged, fingers, keys, files; and that it can be read."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from serve.browser import PROGRAM, Browser, PageGone
from serve.running import HARMONIC, MASK, PICTURE, SECONDS, Running, noise
from torch import Tensor

import inpaint_fast.serve
from inpaint_fast.data import read_image

SIZE = (90, 120)
HOSTILE = "<img src=x onerror=alert(1)>.png"
CSS = (Path(inpaint_fast.serve.__file__).parent / "page.css").read_text()
chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")


class Seen:
    """Completes, and keeps what it was given."""

    def __init__(self) -> None:
        self.pictures: list[Tensor] = []
        self.holes: list[Tensor] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, picture: Tensor, hole: Tensor) -> Tensor:
        assert self.go.wait(SECONDS)
        self.pictures.append(picture)
        self.holes.append(hole[0])
        return HARMONIC(picture, hole)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def seeing(serving, seen) -> Running:
    return serving(seen)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos") / HOSTILE
    Image.fromarray(noise(*SIZE)).save(path)
    return path


@pytest.fixture
def start(browser, seeing, photo) -> Iterator[Callable[..., Browser]]:
    """The page with the photograph open; what its console complained of in the meantime fails the test."""
    browser.complaints.clear()

    def start(**settings) -> Browser:
        browser.go(f"http://{seeing.netloc}/", **settings)
        browser.choose_file("#file", photo)
        browser.wait("document.body.dataset.mode === 'painting'")
        return browser

    yield start
    assert browser.complaints == []


def places(browser: Browser, *shares: tuple[float, float]) -> list[tuple[float, float]]:
    """Places of the window at these shares of the picture's width and height."""
    return browser.places("#sheet", shares)


def painted(browser: Browser) -> int:
    """Pixels of the screen that are painted over."""
    return browser.value(
        "(() => { const paint = document.getElementById('paint'), { width, height } = paint; let n = 0;"
        "const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });"
        "copy.drawImage(paint, 0, 0); const { data } = copy.getImageData(0, 0, width, height);"
        "for (let i = 3; i < data.length; i += 4) n += data[i] > 127; return n; })()"
    )


def completed(browser: Browser) -> None:
    browser.click("#complete")
    browser.wait("document.body.dataset.mode === 'comparing'")


def capsule(a: tuple[float, float], b: tuple[float, float], radius: float) -> np.ndarray:
    """Pixels of the photograph whose middle is nearer than `radius` to the line from a to b, shares of its size."""
    height, width = SIZE
    (ax, ay), (bx, by) = ((x * width, y * height) for x, y in (a, b))
    y, x = np.mgrid[:height, :width] + 0.5
    t = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
    t = t.clip(0, 1)
    return np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)) < radius


@chromium
class TestInABrowser:
    def test_a_brush_that_is_dragged(self, start, seen, photo):
        browser = start()
        assert browser.value("document.getElementById('name').textContent") == HOSTILE
        assert browser.value("document.querySelectorAll('#name *').length") == 0
        assert browser.value("document.getElementById('complete').disabled")
        a, b = (0.3, 0.4), (0.7, 0.6)
        browser.drag(places(browser, a, (0.5, 0.5), b))
        scale = browser.value("document.getElementById('sheet').clientWidth") / SIZE[1]
        completed(browser)
        radius = 36 / scale / 2
        hole = seen.holes[-1].numpy()
        assert not (capsule(a, b, radius - 1) & ~hole).any() and not (hole & ~capsule(a, b, radius + 1)).any()
        assert torch.equal(seen.pictures[-1], read_image(photo))
        # the slider, by its own handle and by the line on the picture
        browser.drag(places(browser, (0.5, 0.5), (0.25, 0.5)))
        assert abs(float(browser.value("document.getElementById('divider').value")) - 25) < 1
        assert browser.value("getComputedStyle(document.getElementById('after')).clipPath").startswith("inset(0")
        left, top = browser.middle("#divider")
        browser.drag([(left, top)])
        assert abs(float(browser.value("document.getElementById('divider').value")) - 50) < 3
        browser.click("#save")
        saved = browser.downloads / "_img src=x onerror=alert(1)_-completed.png"
        until(saved.exists)
        assert torch.equal(read_image(saved), HARMONIC(seen.pictures[-1], seen.holes[-1][None]))
        # back to painting: the stroke is still there; on from the result: it is gone, and undo leads back
        before = painted_after(browser, "#back")
        browser.press("Enter")
        browser.wait("document.body.dataset.mode === 'comparing'")
        assert torch.equal(seen.holes[-1], seen.holes[-2])
        assert before > 0 and painted_after(browser, "#more") == 0
        browser.drag(places(browser, (0.1, 0.1), (0.2, 0.1)))
        completed(browser)
        assert torch.equal(seen.pictures[-1], HARMONIC(seen.pictures[-2], seen.holes[-2][None]))
        browser.click("#back")
        browser.wait("document.body.dataset.mode === 'painting'")
        browser.press("z", ctrl=True)
        assert painted(browser) == 0
        browser.press("z", ctrl=True)
        until(lambda: painted(browser) == before)

    def test_eraser_undo_redo_clear_and_size(self, start):
        browser = start()
        browser.drag(places(browser, (0.2, 0.5), (0.8, 0.5)))
        stroke = painted(browser)
        browser.press("e")
        assert browser.value("document.getElementById('eraser').ariaPressed") == "true"
        browser.press("]")
        browser.drag(places(browser, (0.5, 0.3), (0.5, 0.7)))
        erased = painted(browser)
        assert 0 < erased < stroke
        browser.click("#undo")
        assert painted(browser) == stroke
        browser.press("z", ctrl=True, shift=True)
        assert painted(browser) == erased
        browser.click("#clear")
        assert painted(browser) == 0 and browser.value("document.getElementById('complete').disabled")
        browser.press("z", ctrl=True)
        assert painted(browser) == erased
        browser.press("b")
        browser.press("[")
        browser.press("[")
        assert browser.value("document.getElementById('pixels').value") == "30"
        browser.drag(places(browser, (0.1, 0.1)))
        dot = painted(browser) - erased
        assert abs(dot - np.pi * 15**2) < 40
        browser.press("+")  # what was painted stays where it was on the picture
        assert painted(browser) > 1.3 * (erased + dot)
        browser.press("0")
        assert painted(browser) == erased + dot

    def test_a_phone(self, start, seen):
        browser = start(width=360, height=640, touch=True, density=2)
        for mode in ("painting", "comparing"):
            if mode == "comparing":
                browser.touch(places(browser, (0.3, 0.5), (0.4, 0.5), (0.7, 0.5)))
                completed(browser)
                assert seen.holes[-1].sum() > 0
            shown = browser.value(
                "[...document.querySelectorAll('button, input')].map((e) => [e.id, e.getBoundingClientRect()])"
                ".filter(([, box]) => box.width).map(([id, box]) => [id, box.left, box.top, box.right, box.bottom])"
            )
            assert len(shown) >= 7 and browser.value("document.documentElement.scrollWidth") == 360
            for name, left, top, right, bottom in shown:
                assert left >= 0 and right <= 360 and top >= 0 and bottom <= 640, name
                assert name == "letters" or (right - left >= 40 and bottom - top >= 40), name
        browser.click("#back")
        browser.wait("document.body.dataset.mode === 'painting'")
        before, wide = painted(browser), browser.value("document.getElementById('sheet').clientWidth")
        fingers = [
            places(browser, (0.4, 0.4), (0.3, 0.3), (0.2, 0.2)),
            places(browser, (0.6, 0.6), (0.7, 0.7), (0.8, 0.8)),
        ]
        browser.touch(*fingers)
        assert browser.value("document.getElementById('sheet').clientWidth") > 2 * wide
        browser.click("#fit")
        assert painted(browser) == before and browser.value("document.getElementById('redo').disabled")

    def test_a_pen(self, start):
        browser = start()
        for kind, share in (("mousePressed", 0.3), ("mouseMoved", 0.5), ("mouseReleased", 0.5)):
            ((x, y),) = places(browser, (share, 0.5))
            settings = {"button": "left", "buttons": 1, "pointerType": "pen", "force": 0.4}
            browser("Input.dispatchMouseEvent", type=kind, x=x, y=y, **settings)
        assert painted(browser) > 36**2

    def test_keys_alone(self, start, seen):
        browser = start()
        browser.value("document.getElementById('paint').focus()")
        browser("Input.dispatchKeyEvent", type="keyDown", key=" ", text=" ", windowsVirtualKeyCode=32)
        dot = painted(browser)
        for _ in range(4):
            browser.press("ArrowRight")
        browser("Input.dispatchKeyEvent", type="keyUp", key=" ", windowsVirtualKeyCode=32)
        line = painted(browser)
        browser.press("ArrowUp")
        assert 0 < dot < line and painted(browser) == line
        browser.press("Enter")
        browser.wait("document.body.dataset.mode === 'comparing'")
        assert browser.value("document.activeElement.id") == "divider"
        browser.press("ArrowLeft")
        assert browser.value("document.getElementById('divider').value") == "49.5"
        browser.press("Escape")
        browser.wait("document.body.dataset.mode === 'painting'")
        browser.press("?")
        assert browser.value("document.getElementById('keys').open")
        browser.press("Enter")
        browser.wait("!document.getElementById('keys').open")

    def test_files_that_are_dropped_and_pasted(self, start, photo):
        browser = start()
        for name, kind, data in (("dropped.png", "drop", "dataTransfer"), ("pasted.png", "paste", "clipboardData")):
            browser.value(
                "(async () => { const data = new DataTransfer();"
                f"data.items.add(new File([await (await fetch('icon.svg')).blob()], 'no {name}'));"
                f"document.dispatchEvent(Object.assign(new Event('{kind}'), {{{data}: data}})); }})()"
            )
            browser.wait("document.querySelector('#problem.shown')")
            assert "an SVG drawing" in browser.value("document.querySelector('#problem p').textContent")
            browser.complaints.clear()  # the network's, of status 422
            browser.value(
                "(async () => { const data = new DataTransfer();"
                f"data.items.add(new File([Uint8Array.from({list(PICTURE)})], '{name}'));"
                f"document.dispatchEvent(Object.assign(new Event('{kind}'), {{{data}: data}})); }})()"
            )
            browser.wait(f"document.getElementById('name').textContent === '{name}'")
            browser.value(f"document.dispatchEvent(Object.assign(new Event('{kind}'), {{{data}: new DataTransfer()}}))")
            assert "no " in browser.value("document.querySelector('#problem p').textContent")
        browser.drop(browser.middle("#stage"), photo)
        browser.wait(f"document.getElementById('name').textContent === {json.dumps(HOSTILE)}")

    def test_pictures_that_cannot_be_read_are_told_of_and_the_page_goes_on(self, start, photo, tmp_path):
        browser = start()
        (tmp_path / "note.png").write_text("no picture")
        browser.choose_file("#file", tmp_path / "note.png")
        browser.wait("document.querySelector('#problem.shown')")
        assert "not an image" in browser.value("document.querySelector('#problem p').textContent")
        browser.complaints.clear()
        browser.click("#understood")
        assert not browser.value("document.querySelector('#problem.shown')")
        with open(tmp_path / "large.png", "wb") as file:
            file.truncate(70_000_000)
        browser.choose_file("#file", tmp_path / "large.png")
        browser.wait("document.querySelector('#problem.shown')")
        assert "70.0 MB, and 67.1 are taken" in browser.value("document.querySelector('#problem p').textContent")
        browser.drag(places(browser, (0.3, 0.4), (0.7, 0.6)))
        completed(browser)

    def test_the_line_and_cancelling(self, start, seen, seeing):
        browser, held = start(), len(seen.holes)
        seen.go.clear()
        other = threading.Thread(target=seeing.complete, args=(MASK, PICTURE))
        other.start()
        until(lambda: seeing.server.completing._waiting)
        browser.drag(places(browser, (0.3, 0.4), (0.7, 0.6)))
        browser.click("#complete")
        browser.wait("document.getElementById('doing').textContent.startsWith('1 before you')")
        assert browser.value("document.getElementById('complete').disabled")
        browser.click("#cancel")
        browser.wait("!document.body.classList.contains('waiting')")
        until(lambda: len(seeing.server.completing._waiting) == 1)
        seen.go.set()
        other.join(SECONDS)
        assert len(seen.holes) == held + 1 and painted(browser) > 0
        completed(browser)

    def test_a_page_that_gives_way_to_itself(self, browser, seeing):
        """What the tests wait with asks the next page, where a page goes before it has answered."""
        browser.go(f"http://{seeing.netloc}/")
        with pytest.raises(PageGone):
            browser.value("new Promise(() => location.reload())")
        browser.wait("sessionStorage.left ? true : new Promise(() => { sessionStorage.left = 1; location.reload() })")
        browser.value("sessionStorage.clear()")

    def test_token(self, browser, serving, photo):
        guarded = serving(token="correct-horse")
        browser.go(f"http://{guarded.netloc}/")
        browser.wait("document.getElementById('asked').open")
        browser.value("document.getElementById('token').value = 'correct-horse'")
        browser.click("#asked button")
        browser.wait("document.getElementById('facts').textContent === 'harmonic'")
        browser.value("sessionStorage.clear()")
        browser.go(f"http://{guarded.netloc}/#correct-horse")
        browser.wait("location.hash === '' && document.getElementById('facts').textContent === 'harmonic'")
        assert not browser.value("document.getElementById('asked').open")
        browser.choose_file("#file", photo)
        browser.wait("document.body.dataset.mode === 'painting'")
        browser("Page.reload")
        browser.wait("document.body.dataset.mode === 'empty'")
        browser.wait("document.getElementById('facts').textContent === 'harmonic'")  # the tab knows it still

    def test_a_server_that_has_gone(self, browser, serving, photo):
        short = serving()
        browser.go(f"http://{short.netloc}/")
        browser.wait("document.getElementById('facts').textContent === 'harmonic'")
        short.stop()
        browser.choose_file("#file", photo)
        browser.wait("document.querySelector('#problem.shown')")
        assert "Is it still running?" in browser.value("document.querySelector('#problem p').textContent")

    @pytest.mark.parametrize("mode", ["empty", "painting", "comparing"])
    def test_everything_has_a_name_for_who_cannot_see_it(self, start, seeing, mode):
        browser = start()
        if mode == "empty":
            browser.go(f"http://{seeing.netloc}/")
        elif mode == "comparing":
            browser.drag(places(browser, (0.3, 0.4), (0.7, 0.6)))
            completed(browser)
        nodes = browser("Accessibility.getFullAXTree")["nodes"]
        found = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in ("button", "slider", "toolbar", "application", "image")
        ]
        assert len(found) >= 2 and all(name.strip() for _, name in found), found


def painted_after(browser: Browser, selector: str) -> int:
    """Click what leads to painting, and count."""
    browser.click(selector)
    browser.wait("document.body.dataset.mode === 'painting'")
    return painted(browser)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme) -> None:
    """Text at least 4.5 to 1, what shows where things are at least 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11)."""
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+);", part)) for part in CSS.split("@media", 1))
    colours = light if scheme == "light" else light | dark

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        levels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
        return sum(share * level for share, level in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(a: str, b: str) -> float:
        bright, dim = sorted((luminance(colours[a]), luminance(colours[b])), reverse=True)
        return (bright + 0.05) / (dim + 0.05)

    texts = [("ink", "paper"), ("ink", "card"), ("soft", "paper"), ("soft", "card"), ("on-accent", "accent")]
    texts += [("on-warn", "warn"), ("accent", "paper"), ("ink", "accent-soft")]
    for pair in texts:
        assert contrast(*pair) >= 4.5, pair
    for pair in (("line", "paper"), ("line", "card"), ("accent", "card")):
        assert contrast(*pair) >= 3, pair
