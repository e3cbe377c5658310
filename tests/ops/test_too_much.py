"""Registered operators and functions of the module that are asked for more than there is memory for, or that fits a
number: what may end a process is called in one of its own, and does not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from inpaint_fast import _extension

pytestmark = pytest.mark.skipif(_extension.module is None, reason="the extension is not built")

# What asks for too much, and a word of the error; "False": it is refused, and nothing is done.
TOO_MUCH = [
    ("ops.dilated_block(x, w, None, None, None, None, [1, 1, 2**27, 2**27], 0, 0.0, 0, False, False)", "too large"),
    ("ops.strided_block_weights(w[:1, :1].expand(2**27, 2**27, 3, 3), False)", "no memory"),
    ("ops.dilated_block(torch.ones(1).expand(1, 2**27, 8, 8), torch.ones(1).expand(1, 2**27, 3, 3), None, None, None, "
     "None, [1, 1, 1, 1], 0, 0.0, 0, False, False)", "no memory"),
    ("module.dilated_block_workspace(1, 4, 4, 8, 8, 0, 0, False)", "dilation: at least 1"),
    ("module.dilated_block_workspace(huge, huge, huge, huge, huge, huge, huge, False)", "too large"),
    ("module.dilated_block_workspace(-1, 4, 4, 8, 8, 1, 1, False)", "0 or more"),
    ("module.winograd_tile(-1, 64, 64, 8, 8, 1, 1, True, True)", "0 or more"),
    ("module.winograd_tile(1, 64, 64, 8, 8, 0, 1, True, True)", "dilation: at least 1"),
    ("module.force_winograd_tile(5)", "tile: 4, 6 or 0"),
    ("module.winograd_tasks(-1, 4, 4, 8, 8, 1, 1, False, 4)", "0 or more"),
    ("module.winograd_tasks(1, 4, 4, 8, 8, 1, 1, False, 5)", "tile: 4 or 6"),
    ("module.roofline_multiply_adds(0, 1)", "threads: 1 to"),
    ("module.roofline_roots(huge, 1)", "threads: 1 to"),
    ("module.roofline_roots(1, 0)", "rounds: 1 or more"),
    ("module.roofline_pass([], [], 1)", "1 to 4 streams"),
    ("module.roofline_pass([x.flatten().numpy()] * 2, [x.flatten().numpy()], 1)", "1 to 4 streams"),
    ("module.roofline_pass([x.flatten().numpy()], [], 1, 'fast')", "way: plain, ahead"),
    ("module.roofline_pass([x.flatten().numpy()], [], 1, 'ahead')", "way: other than plain"),
    ("module.roofline_pass([torch.ones(4096).numpy()], [torch.ones(4097).numpy()[1:]] * 2, 1, 'streamed')", "64 bytes"),
    ("module.roofline_pass([x.flatten().double().numpy()], [], 1)", "float32"),
    ("module.roofline_pass([x.flatten().numpy()[::2]], [], 1)", "contiguous"),
    ("module.roofline_pass([b''], [], 1)", "float32"),
    ("module.roofline_copy(torch.ones(4096).numpy(), torch.ones(3).numpy(), 1)", "256 floats"),
    ("module.roofline_copy(x.flatten().numpy(), x.flatten().numpy(), 1)", "two buffers"),
    ("module.winograd_cost(2, 1, 8, 8, 1, 1, 3)", "kind: 0"),
    ("module.winograd_cost(0, 1, 8, 8, 1, 1, 4)", "taps: 3"),
    ("module.winograd_cost(1, 1, 8, 8, 1, 1, 6)", "taps: 3"),
    ("module.winograd_cost(1, 1, 8, -8, 1, 1, 4)", "0 or more"),
    ("module.winograd_cost(0, 1, 8, 8, 0, 1, 3)", "dilation: at least 1"),
    ("module.weight_clip([1, 2], 0.0, 1.0)", "False"),
    ("module.weight_clip([torch._efficientzerotensor(3)], 0.0, 1.0)", "False"),
    ("module.weight_clip([torch._neg_view(torch.ones(3))], 0.0, 1.0)", "False"),
    ("module.weight_clip([torch.ones(3, device='meta')], 0.0, 1.0)", "False"),
    ("module.weight_clip([torch.frombuffer(bytearray(13), dtype=torch.float32, offset=1)], 0.0, 1.0)", "False"),
    ("module.clipped_step([torch.ones(3)], [torch.ones(3)], [], [], [], [], 1, 0.1, 0.9, 0.9, 0.1, 0.0, 0.0, 1.0, "
     "False, False, False, False)", "False"),
    ("module.clipped_step([], [], [], [], [], [], 99, 0.1, 0.9, 0.9, 0.1, 0.0, 0.0, 1.0, False, False, False, False)",
     "False"),
]  # fmt: skip
CHILD = """
import json, sys, torch, inpaint_fast
import inpaint_fast._extension as extension
ops, module = torch.ops.inpaint_fast, extension.module
x, w, huge = torch.ones(1, 4, 8, 8), torch.ones(4, 4, 3, 3), 2**62
for call in json.loads(sys.argv[1]):
    try:
        said = repr(eval(call))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said), flush=True)
"""


def test_what_asks_for_too_much_leaves_the_process_alive() -> None:
    calls = [call for call, _ in TOO_MUCH]
    ran = subprocess.run([sys.executable, "-c", CHILD, json.dumps(calls)], capture_output=True, text=True)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, f"it died of {calls[len(answers)]}: {ran.stderr[-500:]}"
    for (call, words), answer in zip(TOO_MUCH, answers, strict=True):
        assert words in answer, (call, answer)
