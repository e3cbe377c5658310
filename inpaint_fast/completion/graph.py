"""A completion network as a graph for other runtimes: a `torch.export` program, or ONNX.

Every batch and picture size fits. The graphs are of PyTorch's own operators, since another runtime has none of ours,
and are compared with the network before they are written.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from inpaint_fast._files import write_whole
from inpaint_fast.completion.generators import at_rest
from inpaint_fast.models.glcic import CompletionNetwork
from inpaint_fast.ops import use_backend

SUFFIXES = (".onnx", ".pt2")
NAMES = ("picture", "mask")
TOLERANCE = 1e-4  # of RGB in [0, 1]: where direct and Winograd convolutions may come to lie apart
SIZES = ((2, 48, 64), (1, 60, 44))  # batch, height, width: of the example, and of another that must fit, too


def export(network: nn.Module, path: str | os.PathLike[str]) -> float:
    """Write a completion network for another runtime.

    The graph's inputs are `picture`, float32 (N, 3, H, W), RGB in [0, 1], and `mask`, float32 (N, 1, H, W), at least
    0.5 in the hole; its output is (N, 3, H, W). N is any number, H and W are multiples of 4.

    Args:
        network: a CompletionNetwork in float32 on the CPU; exported in eval mode, and left as it is.
        path: of the file: .onnx (needs the extra [onnx]) or .pt2, for `torch.export.load`.

    Returns:
        The largest difference between the graph's answers and the network's, at most 1e-4, on pictures of two sizes.

    Raises:
        TypeError: network is no CompletionNetwork.
        ValueError: path ends otherwise.
        ImportError: the extra [onnx] is not installed.
        RuntimeError: the graph does not answer as the network does. Nothing is written then.
    """
    if not isinstance(network, CompletionNetwork):
        raise TypeError(f"network: a CompletionNetwork is expected, got {type(network).__name__}")
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"path: a file that ends in .onnx or .pt2 is expected, got {os.fspath(path)}")
    batch, rows, columns = torch.export.Dim("batch"), torch.export.Dim("rows"), torch.export.Dim("columns")
    free = {0: batch, 2: 4 * rows, 3: 4 * columns}
    with at_rest(network), torch.no_grad():
        with use_backend("reference"):
            program = torch.export.export(network, _inputs(*SIZES[0]), dynamic_shapes=(free, dict(free)), strict=False)
        data = _onnx(program) if suffix == ".onnx" else _pt2(program)
        difference = max(_difference(network, data, suffix, _inputs(*size)) for size in SIZES)
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the exported graph's answers differ by {difference:.1e} from the network's")
    write_whole(path, lambda file: file.write(data))
    return difference


def _inputs(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pictures, and masks with a hole in the middle."""
    mask = torch.zeros(batch, 1, height, width)
    mask[..., height // 4 : height // 2, width // 4 : width // 2] = 1
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)), mask


def _pt2(program: torch.export.ExportedProgram) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _onnx(program: torch.export.ExportedProgram) -> bytes:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"ONNX needs {error.name}: pip install 'inpaint_fast[onnx]'") from error
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(program, input_names=NAMES, output_names=["completed"], dynamo=True, verbose=False)
    assert exported is not None  # without a file's name it is returned
    return exported.model_proto.SerializeToString()


def _difference(network: CompletionNetwork, data: bytes, suffix: str, inputs: tuple[Tensor, Tensor]) -> float:
    wanted = network(*inputs)
    if suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        feed = {name: tensor.numpy() for name, tensor in zip(NAMES, inputs, strict=True)}
        answer = torch.from_numpy(np.asarray(session.run(None, feed)[0]))
    else:
        answer = torch.export.load(io.BytesIO(data)).module()(*inputs)
    return (answer - wanted).abs().max().item()
