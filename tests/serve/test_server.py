"""What the server answers, to whom, and what it does not survive: nothing here."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serve.running import COMPLETED, MASK, PICTURE, SECONDS, SIZE, file_of, noise

from inpaint_fast.serve import Limits, server
from inpaint_fast.serve.server import FILES, address_of, is_loopback

SVG = 'xmlns="http://www.w3.org/2000/svg"'


def head_of(path: str, length: int, more: str = "") -> bytes:
    """The head of a request that is in order, its body to follow."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Inpaint-Fast: 1\r\nContent-Length: {length}\r\n{more}\r\n"
    return head.encode()


class TestThePage:
    @pytest.mark.parametrize("path", FILES)
    def test_files(self, page, path):
        answer = page.ask(path)
        assert answer.status == 200 and answer.content and answer.headers["Content-Type"] == FILES[path][1]
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        head = page.ask(path, method="HEAD")
        assert head.status == 200 and not head.content
        assert head.headers["Content-Length"] == str(len(answer.content))

    def test_nothing_is_loaded_from_elsewhere_and_every_file_of_it_is_there(self, page):
        texts = {path: page.ask(path).content.decode() for path in FILES}
        for path, text in texts.items():
            assert not re.search(r"(https?:)?//[\w-]+\.", text.replace(SVG, "")), path
        named = set(re.findall(r"(?:href|src)=\"([\w.]+)\"", texts["/"]))
        named |= {name for text in texts.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
        assert {f"/{name}" for name in named} | {"/"} == set(FILES)

    def test_they_are_in_the_wheel(self):
        settings = (Path(__file__).parents[2] / "pyproject.toml").read_text()
        patterns = re.findall(r'"(.*?)"', re.search(r'(?m)^"inpaint_fast\.serve" = \[(.*)\]$', settings)[1])
        assert all(any(fnmatch(name, pattern) for pattern in patterns) for name, _ in FILES.values())

    def test_every_element_that_the_script_names_is_there(self, page):
        script, html = (page.ask(path).content.decode() for path in ("/page.js", "/"))
        named = set(re.findall(r'\$\("([\w-]+)"\)', script)) | set(
            re.findall(r"(?m)^  (\w+)[:,]", re.search(r"(?s)const CLICKS = {(.*?)};", script)[1])
        )
        assert len(named) > 30 and named <= set(re.findall(r'id="([\w-]+)"', html))

    def test_settings(self, page):
        facts = json.loads(page.ask("/settings").content)
        assert facts == {"filler": "harmonic", "max_bytes": Limits.max_bytes, "max_pixels": Limits.max_pixels}


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl is installed")
def test_without_the_page(page, tmp_path):
    """The commands of docs/serve.md, as they are printed there, at this server's port."""
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    commands = re.search(r"^```\n(mask=.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]
    (tmp_path / "hole.png").write_bytes(MASK)
    (tmp_path / "photo.jpg").write_bytes(PICTURE)  # whatever its name says
    commands = commands.replace("127.0.0.1:8000", page.netloc)
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True, timeout=SECONDS)
    assert (np.asarray(Image.open(tmp_path / "completed.png")) == COMPLETED.permute(1, 2, 0).numpy()).all()


class TestTooMuch:
    def test_200_megabytes(self, page):
        connection = http.client.HTTPConnection(page.netloc, timeout=SECONDS)
        connection.putrequest("POST", "/complete")
        for name, value in (("X-Inpaint-Fast", "1"), ("X-Mask-Bytes", "9"), ("Content-Length", "200000000")):
            connection.putheader(name, value)
        connection.endheaders()
        piece = bytes(1_000_000)
        try:
            for _ in range(200):
                connection.send(piece)
        except ConnectionError:  # it reads no more of it than it has patience for
            pass
        else:
            answer = connection.getresponse()
            assert answer.status == 413 and b"200.0 MB, and 67.1 are taken" in answer.read()
        connection.close()
        page.assert_alive()

    def test_limits_are_those_of_the_settings(self, serving):
        small = serving(limits=Limits(max_bytes=len(MASK + PICTURE), max_pixels=SIZE[0] * SIZE[1]))
        small.assert_alive()
        assert small.ask("/open", bytes(len(MASK + PICTURE) + 1)).status == 413
        assert "megapixels" in small.ask("/open", file_of(noise(SIZE[0], SIZE[1] + 1, 1))).error

    def test_connections_that_say_nothing(self, serving, monkeypatch):
        monkeypatch.setattr(server, "CONNECTIONS", 3)
        monkeypatch.setattr(server, "HEAD_SECONDS", 600)
        few = serving()
        idle = [socket.create_connection(("127.0.0.1", few.server.server_port)) for _ in range(3)]
        with pytest.raises(OSError):  # closed without an answer
            few.ask("/")
        for each in idle:
            each.close()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                few.assert_alive()
                break
            except OSError:
                time.sleep(0.02)
        else:
            pytest.fail("it never recovered")

    @pytest.mark.parametrize(("head", "body"), [(0.2, 30), (30, 0.2)])
    def test_clients_that_send_a_byte_now_and_then(self, serving, monkeypatch, head, body):
        monkeypatch.setattr(server, "HEAD_SECONDS", head)
        monkeypatch.setattr(server, "BODY_SECONDS", body)
        slow = serving()
        with socket.create_connection(("127.0.0.1", slow.server.server_port), timeout=SECONDS) as client:
            if body < 1:
                client.sendall(
                    b"POST /open HTTP/1.1\r\nHost: localhost\r\nX-Inpaint-Fast: 1\r\nContent-Length: 999\r\n\r\n"
                )
            got, began = b"", time.monotonic()
            client.settimeout(0.05)
            while time.monotonic() - began < SECONDS:
                try:
                    client.send(b"x")
                    piece = client.recv(1000)
                    if not piece:
                        break
                    got += piece
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            else:
                pytest.fail("it waits for ever")
        assert (b" 408 " in got and b"too slowly" in got) if body < 1 else got == b""


class TestWho:
    @pytest.mark.parametrize(
        "path",
        [
            "/../server.py", "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/../server.py",
            "//etc/passwd", "/page.css%00", "/page.css?x", "/page%2ecss", "/.", "/server.py",
            "/page.html", "/__init__.py", "/\\..\\server.py", "/file:///etc/passwd", "http://127.0.0.1/etc/passwd",
            "/" + "a" * 20_000, "*",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_paths_lead_nowhere(self, page, path, method):
        with socket.create_connection(("127.0.0.1", page.server.server_port), timeout=SECONDS) as client:
            client.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
            client.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert answer.status == 404 and b"root:" not in answer.read()

    def test_names_of_files_are_not_looked_at(self, page, tmp_path):
        name = 'form-data; name="x"; filename="../../../../etc/passwd"'
        assert page.ask("/open", PICTURE, Content_Disposition=name).status == 200
        assert page.ask("/open", b"/etc/passwd").status == 422

    @pytest.mark.parametrize("path", [*FILES, "/settings", "/queue", "/open", "/complete"])
    def test_methods(self, page, path):
        allowed = "POST" if path in ("/open", "/complete") else "GET"
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - {allowed}:
            answer = page.ask(path, b"" if method not in ("GET", "TRACE") else None, method=method)
            assert answer.status == 405 and answer.headers["Allow"] == allowed and answer.error
        answer = page.ask(path, method="BREW")
        assert answer.status == 501 and "no request that is understood" in answer.error

    def test_token(self, serving):
        guarded = serving(token="correct-horse")
        assert guarded.ask("/").status == 200
        for path, body in (("/settings", None), ("/queue", None), ("/open", PICTURE), ("/complete", MASK + PICTURE)):
            right = {"Authorization": "Bearer correct-horse"}
            wrong = ({}, {"Authorization": "Bearer correct-hors"}, {"Authorization": "Bearer "}, {"Cookie": "token=correct-horse"}, {"Authorization": "Bearer \xe9"})  # fmt: skip  # noqa: E501
            answers = [guarded.ask(path, body, X_Mask_Bytes=str(len(MASK)), **headers) for headers in wrong]
            assert all(answer.status == 401 and "token" in answer.error for answer in answers)
            assert guarded.ask(path, body, X_Mask_Bytes=str(len(MASK)), **right).status == 200

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("localhost", 200), ("localhost:1234", 200), ("LOCALHOST", 200), ("127.0.0.1", 200), ("[::1]:80", 200),
            ("192.168.1.7:8000", 200), (socket.gethostname(), 200), ("evil.example", 421), ("evil.example:8000", 421),
            ("127.0.0.1.evil.example", 421), ("localhost.evil.example", 421), ("localhost@evil.example", 421),
            ("evil.example#localhost", 421), ("[::1", 421), ("", 421), ("localhost, evil.example", 421), ("1", 421),
        ],
    )  # fmt: skip
    def test_host(self, page, host, status):
        for path in ("/", "/settings"):
            assert page.ask(path, Host=host).status == status
        assert page.ask("/open", PICTURE, Host=host).status == status

    def test_two_hosts_or_none(self, page):
        for lines in ("", "Host: localhost\r\nHost: evil.example\r\n"):
            with socket.create_connection(("127.0.0.1", page.server.server_port), timeout=SECONDS) as client:
                client.sendall(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())
                assert b" 421 " in client.recv(100)

    def test_other_sites(self, page):
        own = f"http://{page.netloc}"
        assert page.ask("/open", PICTURE, Origin=own).status == 200
        for headers in (
            {"X_Inpaint_Fast": ""}, {"X_Inpaint_Fast": "0"}, {"Origin": "http://evil.example"}, {"Origin": "null"},
            {"Origin": own + ".evil.example"}, {"Origin": "http://localhost:1"}, {"Origin": own, "X_Inpaint_Fast": ""},
        ):  # fmt: skip
            answer = page.ask("/open", PICTURE, **headers)
            assert answer.status == 403 and answer.error
        asked = page.ask("/open", method="OPTIONS", Origin="http://evil.example", Access_Control_Request_Method="POST")
        assert asked.status == 405 and not any(name.startswith("Access-Control") for name in asked.headers)

    @pytest.mark.parametrize(
        ("host", "loopback"), [("127.0.0.1", True), ("localhost", True), ("127.8.8.8", True), ("0.0.0.0", False)]
    )
    def test_loopback(self, host, loopback):
        assert is_loopback(host) == loopback
        with pytest.raises(OSError, match="host: an address of this machine"):
            address_of("no such host")


class TestTheLine:
    def test_one_at_a_time_and_no_more_than_there_are_places(self, serving):
        go, running, most = threading.Semaphore(0), [], []

        def slow(picture, hole):
            running.append(1)
            most.append(len(running))
            assert go.acquire(timeout=SECONDS)
            running.pop()
            return picture

        line = serving(slow, limits=Limits(places=3))
        answers = {}

        def ask(ticket):
            answers[ticket] = line.complete(MASK, PICTURE, X_Ticket=ticket)

        def ahead(ticket):
            return json.loads(line.ask("/queue", X_Ticket=ticket).content)["ahead"]

        threads = []
        for i, ticket in enumerate(("first", "second", "third")):
            threads.append(threading.Thread(target=ask, args=(ticket,)))
            threads[-1].start()
            wait(lambda ticket=ticket, i=i: ahead(ticket) == i)
        refused = line.complete(MASK, PICTURE)
        assert refused.status == 503 and "full: 3 are" in refused.error and refused.headers["Retry-After"] == "30"
        assert line.ask("/open", PICTURE).status == 200 and line.ask("/").status == 200  # the page lives on
        assert ahead("nobody") is None and ahead("<script>") is None and ahead("") is None
        go.release()
        wait(lambda: ahead("third") == 1)
        go.release(2)
        for thread in threads:
            thread.join(SECONDS)
        assert [answer.status for answer in answers.values()] == [200] * 3 and list(answers)[0] == "first"
        assert max(most) == 1 and len(most) == 3

    def test_one_who_leaves_is_not_completed(self, serving):
        go, seen = threading.Event(), []

        def slow(picture, hole):
            seen.append(picture.shape)
            assert go.wait(SECONDS)
            return picture

        line = serving(slow, limits=Limits(places=2))
        first = threading.Thread(target=line.complete, args=(MASK, PICTURE))
        first.start()
        wait(lambda: seen)
        body = MASK + PICTURE
        head = head_of("/complete", len(body), f"X-Mask-Bytes: {len(MASK)}\r\nX-Ticket: left\r\n")
        with socket.create_connection(("127.0.0.1", line.server.server_port), timeout=SECONDS) as client:
            client.sendall(head + body)
            wait(lambda: line.server.completing.ahead("left") == 1)
        wait(lambda: line.server.completing.ahead("left") is None)
        go.set()
        first.join(SECONDS)
        assert line.complete(MASK, PICTURE).status == 200 and len(seen) == 2

    def test_stopped(self, serving):
        go, seen = threading.Event(), []

        def slow(picture, hole):
            seen.append(1)
            assert go.wait(SECONDS)
            return picture

        line, answers = serving(slow), []
        threads = [threading.Thread(target=lambda: answers.append(line.complete(MASK, PICTURE))) for _ in range(2)]
        for i, thread in enumerate(threads):
            thread.start()
            wait(lambda i=i: len(line.server.completing._waiting) == i + 1)
        wait(lambda: seen)
        stopping = threading.Thread(target=line.stop, args=(SECONDS,))
        stopping.start()
        wait(lambda: answers)
        assert answers[0].status == 503 and "stopped" in answers[0].error and stopping.is_alive()
        go.set()
        for thread in (*threads, stopping):
            thread.join(SECONDS)
        assert [answer.status for answer in answers] == [503, 200] and len(seen) == 1

    def test_many_at_once(self, page):
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(page.complete(MASK, PICTURE))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert len(answers) == 20 and {answer.status for answer in answers} <= {200, 503}
        assert sum(answer.status == 200 for answer in answers) >= Limits.places
        page.assert_alive()


class TestTrouble:
    @pytest.mark.parametrize(
        ("error", "status", "words"),
        [
            (ValueError("the network's answer is not finite"), 422, "answer is not finite"),
            (RuntimeError("boom at /home/me/secret"), 500, "It failed"),
            (MemoryError(), 500, "not enough memory"),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 500, "not enough memory"),
            (AssertionError(), 500, "It failed"),
        ],
    )
    def test_completions_that_fail(self, serving, capsys, error, status, words):
        def failing(picture, hole):
            if picture[0, 0, 0] == 7:
                raise error
            return COMPLETED

        failing_server = serving(failing)
        bad = noise(*SIZE)
        bad[0, 0, 0] = 7
        answer = failing_server.complete(MASK, file_of(bad))
        assert answer.status == status and words in answer.error and "secret" not in answer.error
        assert ("an error: " in capsys.readouterr().err) == (status == 500)
        failing_server.assert_alive()

    def test_requests_that_are_none(self, page):
        draw = np.random.default_rng(0)
        start = head_of("/complete", 40, "X-Mask-Bytes: 9\r\n")
        for i in range(150):
            data = bytearray(start + bytes(40))
            for place in draw.integers(0, len(data), draw.integers(1, 30)):
                data[place] = draw.integers(256)
            with socket.create_connection(("127.0.0.1", page.server.server_port), timeout=SECONDS) as client:
                client.sendall(bytes(data[: draw.integers(1, len(data))]) if i % 2 else bytes(data))
                client.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda client=client: client.recv(1 << 16), b""))
                assert answer == b"" or answer.startswith(b"HTTP/1.0 4") or b'"error"' in answer
        page.assert_alive()

    def test_uploads_that_break_off(self, page):
        for sent in (0, 5, len(MASK) + 5):
            with socket.create_connection(("127.0.0.1", page.server.server_port), timeout=SECONDS) as client:
                head = head_of("/complete", 5000, f"X-Mask-Bytes: {len(MASK)}\r\n")
                client.sendall(head + (MASK + PICTURE)[:sent])
        page.assert_alive()
        assert page.server.completing._taken == 0


def wait(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
