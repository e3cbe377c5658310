"""The other stacks that run a network, as a user would set them up; each answers a `harness.Run`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn

from inpaint_fast import _extension
from inpaint_fast.benchmarks import harness
from inpaint_fast.ops import backend_of, use_backend

NCHW, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
COMPILE_MODES = ("default", "max-autotune", "reduce-overhead")
GPU_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}  # float32: TF32 where PyTorch takes it by default


def inference(network: nn.Module, *inputs: Tensor) -> harness.Run:
    def run() -> Tensor:
        with torch.no_grad():
            return network(*inputs)

    return run


def compiled(network: Callable, mode: str = "default") -> Callable:
    if mode == COMPILE_MODES[0]:  # otherwise a case is a recompilation of the one before: for any shape, at last none
        torch._dynamo.reset()
    return torch.compile(network, fullgraph=True, dynamic=False, mode=mode)


def on_gpu(
    stem: str,
    ours: Callable[[torch.memory_format], harness.Run],
    eager: Callable[[torch.memory_format], harness.Run],
    compiled: Callable[[str], harness.Run],
    weight_gradient: bool = False,
) -> list[harness.Implementation]:
    """inpaint_fast as it chooses and by each GPU backend, against PyTorch in both layouts and every mode of compile.

    Each is given what prepares it: `ours` and `eager` for a memory layout, `compiled` for a mode of torch.compile.
    `weight_gradient`: by CUDA, also with each of the codes of the convolutions' weight gradient, whichever is the
    default.
    """
    torch.backends.cudnn.benchmark = True  # for all of them, as who wants speed sets it
    layouts = {"": NCHW, "_channels_last": CHANNELS_LAST}
    return [
        harness.Implementation("inpaint_fast", partial(ours, CHANNELS_LAST), lambda: backend_of(stem, "cuda")),
        harness.Implementation("inpaint_fast_nchw", partial(ours, NCHW), lambda: backend_of(stem, "cuda")),
        *(
            harness.Implementation(f"inpaint_fast_{backend}", partial(forced, backend, ours), backend)
            for backend in ("cuda", "triton")
        ),
        *(
            harness.Implementation(f"inpaint_fast_wgrad_{code}", partial(by_weight_gradient, code, ours), "cuda")
            for code in (_extension.CUDA_CAPABILITIES if weight_gradient else ())
        ),
        *(harness.Implementation(f"eager{name}", partial(eager, layout)) for name, layout in layouts.items()),
        *(
            harness.Implementation(
                f"compile_{mode}", partial(stepped, partial(compiled, mode)), "inductor", graphed=mode == "default"
            )
            for mode in COMPILE_MODES
        ),
    ]


def forced(backend: str, ours: Callable[[torch.memory_format], harness.Run]) -> harness.Run:
    """Ours by one backend, prepared and run; an error where that cannot run."""
    with use_backend(backend):
        run = ours(CHANNELS_LAST)

    def again() -> object:
        with use_backend(backend):
            return run()

    return again


def by_weight_gradient(code: str, ours: Callable[[torch.memory_format], harness.Run]) -> harness.Run:
    """Ours by CUDA with that code of the weights' gradient; an error where that cannot run."""
    run = forced("cuda", ours)

    def again() -> object:
        with mock.patch.dict(os.environ, {"INPAINT_FAST_CUDA_WEIGHT_GRADIENT": code}):
            return run()

    return again


def stepped(prepare: Callable[[], harness.Run]) -> harness.Run:
    """What torch.compile made CUDA graphs of may overwrite the results of the call before."""
    run = prepare()

    def again() -> object:
        torch.compiler.cudagraph_mark_step_begin()
        return run()

    return again


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
