"""The other stacks that run a network on a CPU, as a user would set them up; each answers a `harness.Run`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from inpaint_fast.benchmarks import harness


def inference(network: nn.Module, *inputs: Tensor) -> harness.Run:
    def run() -> Tensor:
        with torch.no_grad():
            return network(*inputs)

    return run


def compiled(network: nn.Module) -> nn.Module:
    torch._dynamo.reset()  # otherwise each case is a recompilation of the one before: for any shape, and at last none
    return torch.compile(network, fullgraph=True, dynamic=False)


def frozen(network: nn.Module, *inputs: Tensor) -> harness.Run:
    """torch.compile with the weights frozen into the graph."""
    import torch._inductor.config

    run = inference(compiled(network), *inputs)
    with torch._inductor.config.patch(freezing=True):
        run()  # compiles
    return run


def onnx(network: nn.Module, *inputs: Tensor) -> bytes:
    """The network exported, as the file's bytes."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings(action="ignore"):
        return torch.onnx.export(network, inputs, dynamo=True, verbose=False).model_proto.SerializeToString()


def openvino(model: Callable[[], bytes], *inputs: Tensor) -> harness.Run:
    import openvino as ov

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    core = ov.Core()
    request = core.compile_model(core.read_model(model=model()), "CPU", settings).create_infer_request()
    arrays = [tensor.numpy() for tensor in inputs]
    return lambda: request.infer(arrays, share_inputs=True, share_outputs=True)[0]


def onnxruntime(model: Callable[[], bytes], *inputs: Tensor) -> harness.Run:
    import onnxruntime as ort

    if "ONEDNN_MAX_CPU_ISA" in os.environ:
        raise RuntimeError("nothing limits its instruction set")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # its threads must not wait in a peer's turn
    session = ort.InferenceSession(model(), options, providers=["CPUExecutionProvider"])
    feed = {slot.name: tensor.numpy() for slot, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: session.run(None, feed)[0]
