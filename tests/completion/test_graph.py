"""Completion networks exported: the graph answers as the network does, for any size; what is wrong is said."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import nn

from inpaint_fast.cli.main import main
from inpaint_fast.completion import export, graph, save_network
from inpaint_fast.models import CompletionNetwork, UNetGenerator

ARGUMENTS = {"channels": 4, "mean_pixel": [0.2, 0.5, 0.7]}


@pytest.fixture
def network() -> CompletionNetwork:
    torch.manual_seed(0)
    network = CompletionNetwork(**ARGUMENTS)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def questions() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Sizes that the export did not see."""
    sizes = ((3, 40, 52), (1, 8, 128))
    return [(torch.rand(n, 3, h, w), (torch.rand(n, 1, h, w) > 0.7).float()) for n, h, w in sizes]


@pytest.mark.proves("export", equals="the network, at any size")
def test_torch_export(network: CompletionNetwork, tmp_path: Path) -> None:
    network.train()
    assert export(network, tmp_path / "network.pt2") <= 1e-4
    assert network.training
    network.eval()
    program = torch.export.load(tmp_path / "network.pt2").module()
    for picture, mask in questions():
        torch.testing.assert_close(program(picture, mask), network(picture, mask), rtol=0, atol=1e-5)


def test_onnx_from_the_shell(network: CompletionNetwork, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    import onnxruntime

    save_network(tmp_path / "generator.safetensors", network, ARGUMENTS)
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "network.onnx")]) == 0
    assert "of the network" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for picture, mask in questions():
        (answer,) = session.run(["completed"], {"picture": picture.numpy(), "mask": mask.numpy()})
        torch.testing.assert_close(torch.from_numpy(answer), network.eval()(picture, mask), rtol=0, atol=1e-5)


def test_what_is_wrong_is_said(network: CompletionNetwork, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(TypeError, match="network: a CompletionNetwork is expected, got UNetGenerator"):
        export(UNetGenerator(), tmp_path / "network.onnx")
    with pytest.raises(ValueError, match=r"path: a file that ends in .onnx or .pt2"):
        export(network, tmp_path / "network.pt")
    assert main(["export", str(tmp_path / "no.safetensors"), "--out", str(tmp_path / "network.pt2")]) == 2
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "network.bin")]) == 2
    assert "--out: a .onnx or .pt2 file is expected" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_graph_that_answers_otherwise_is_not_written(
    network: CompletionNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = CompletionNetwork(**ARGUMENTS).eval()
    program = torch.export.export(other, questions()[0])
    file = io.BytesIO()
    torch.export.save(program, file)
    monkeypatch.setattr(graph, "_pt2", lambda _: file.getvalue())
    monkeypatch.setattr(graph, "SIZES", ((3, 40, 52),))
    with pytest.raises(RuntimeError, match="differ by .* from the network's"):
        export(network, tmp_path / "network.pt2")
    assert not list(tmp_path.iterdir())
