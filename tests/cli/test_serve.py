"""inpaint-fast serve: what it refuses, what it prints, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
import torch

from inpaint_fast.cli import serve
from inpaint_fast.cli.main import main
from inpaint_fast.completion import complete, save_network
from inpaint_fast.data import box
from inpaint_fast.models import CaptionUNetGenerator, CompletionNetwork, MLPGenerator

SECONDS = 300


@pytest.fixture
def started(monkeypatch, capsys):
    """Runs the command until its server would wait for requests; its exit code, its output, the server."""
    servers = []

    def wait_no_longer(server, *_):
        servers.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr("inpaint_fast.serve.Server.serve_forever", wait_no_longer)

    def start(*arguments: object):
        code = main(["serve", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err, servers[-1] if servers else None

    return start


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "--port: a number from 0 to 65,535 is expected, got 70000"),
        (["--max-bytes", "0"], "--max-bytes: a number from 1 "),
        (["--max-pixels", "99999999"], "--max-pixels: a number from 1 to 80,000,000"),
        (["--token", "short"], "--token: at least 8"),
        (["--token", "with spaces in it"], "--token: at least 8"),
        (["--weights", "nowhere", "--fill", "harmonic"], "one of them"),
        (["--weights", "nowhere"], "nowhere"),
        (["--device", "tpu"], "device: 'auto'"),
        (["--host", "no such host"], "host: an address of this machine is expected, got 'no such host'"),
        (["--host", "192.0.2.77", "--port", "0"], "--host, --port: nothing can listen at 192.0.2.77:0"),
    ],
)
def test_what_cannot_be_meant(started, arguments, words) -> None:
    code, out, error, _ = started(*arguments)
    assert code == 2 and words in error and not out


def test_a_port_that_is_taken(started) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, _, error, _ = started("--port", other.getsockname()[1])
    assert code == 2 and "is taken by another program; --port 0" in error


def test_this_machine_alone_needs_no_token(started) -> None:
    code, out, error, server = started("--port", 0)
    assert code == 0 and re.match(r"http://127\.0\.0\.1:\d+/  \(weights: sharp; Ctrl-C ends it\)\n", out)
    assert server.token is None and server.server_address[0] == "127.0.0.1" and "stopping" in error


def test_for_others_a_token_is_made_and_printed(started) -> None:
    tokens = set()
    for _ in range(2):
        code, out, _, server = started("--port", 0, "--host", "0.0.0.0")
        assert code == 0 and len(server.token) >= 20 and f"/#{server.token}  (" in out and "0.0.0.0" not in out
        tokens.add(server.token)
    assert len(tokens) == 2
    assert started("--port", 0, "--host", "0.0.0.0", "--token", "correct-horse")[3].token == "correct-horse"
    assert started("--port", 0, "--token", "correct-horse")[3].token == "correct-horse"


def test_open_opens_the_page(started, monkeypatch) -> None:
    opened = []
    monkeypatch.setattr(serve.webbrowser, "open", opened.append)
    out = started("--port", 0, "--open")[1]
    assert opened == [out.split()[0]]


@pytest.mark.parametrize(
    ("network", "arguments", "words"),
    [
        (CaptionUNetGenerator, {"filters": 1, "vector": 2}, "this generator reads captions"),
        (MLPGenerator, {"width": 2}, "a generator that completes pictures is expected, got MLPGenerator"),
    ],
)
def test_generators_that_the_page_cannot_ask(started, tmp_path, network, arguments, words) -> None:
    save_network(tmp_path / "net.safetensors", network(**arguments), arguments)
    code, _, error, _ = started("--port", 0, "--weights", tmp_path / "net.safetensors")
    assert code == 2 and words in error


def test_weights_complete(started, tmp_path) -> None:
    torch.manual_seed(0)
    save_network(tmp_path / "net.safetensors", CompletionNetwork(2, hole=32), {"channels": 2, "hole": 32})
    code, out, _, server = started("--port", 0, "--weights", tmp_path / "net.safetensors")
    assert code == 0 and "(weights: net.safetensors; " in out
    picture = torch.randint(256, (3, 40, 48), dtype=torch.uint8)
    hole = box(40, 48, 5, 5, 20, 10)
    assert torch.equal(server.complete(picture, hole), complete(picture, hole, weights=tmp_path / "net.safetensors"))


def test_ctrl_c_and_sigterm_end_it(tmp_path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "inpaint_fast", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process, number in zip(started, (signal.SIGINT, signal.SIGTERM), strict=True):
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            assert b"<title>inpaint-fast</title>" in answer.read()
        process.send_signal(number)
        out, error = process.communicate(timeout=SECONDS)
        assert process.returncode == 0 and not out and re.fullmatch(r"[\d:]+  stopping\n", error), error
