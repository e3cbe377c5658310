"""Compiles Triton kernels for GPUs that are not there, and reads what they use of them.

In a process of its own: in this one Triton's kernels are interpreted, from their first import on.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kernel:
    """One kernel to compile.

    Attributes:
        module, name: where it is.
        types: argument -> type, in Triton's notation: "*fp32", "i32"; a tuple of them for a tuple. Pointers are taken
            to be 16-byte aligned, as PyTorch's allocations are, and so is "i32:16" a multiple of 16; the number 1 is
            an argument that is 1, which Triton compiles in.
        constants: argument -> value.
        capability: 80 or 90.
        warps: warps a program.
        stages: of a pipelined loop.
    """

    module: str
    name: str
    types: dict[str, Any]
    constants: dict[str, Any]
    capability: int
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True)
class Compiled:
    """What came out.

    Attributes:
        code_bytes: size of the machine code.
        registers: of a thread.
        stack_bytes: of a thread, where registers spill to.
        shared_bytes: of shared memory, of a program.
        wide: whether it loads and stores 16 bytes at a time.
    """

    code_bytes: int
    registers: int
    stack_bytes: int
    shared_bytes: int
    wide: bool


def compile_all(kernels: list[Kernel]) -> list[Compiled]:
    """Compile each kernel to machine code, in as many processes as there are processors.

    Raises:
        RuntimeError: one did not compile; the message is Triton's.
    """
    shares = [kernels[i :: os.cpu_count()] for i in range(os.cpu_count())]
    with ThreadPoolExecutor(len(shares)) as pool:
        done = list(pool.map(_compile_in_process, shares))
    return [done[i % len(shares)][i // len(shares)] for i in range(len(kernels))]


def resources(path: Path) -> list[tuple[str, int, int]]:
    """(name, registers, stack bytes) of each kernel in a file of machine code."""
    from triton import knobs

    command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"Function ([^\s:]+):\s+REG:(\d+) STACK:(\d+)", said)
    return [(name, int(registers), int(stack)) for name, registers, stack in found]


def _compile_in_process(kernels: list[Kernel]) -> list[Compiled]:
    if not kernels:
        return []
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    ran = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([asdict(kernel) for kernel in kernels]),
        capture_output=True,
        text=True,
        env=environment,
    )
    if ran.returncode:
        raise RuntimeError(f"a kernel did not compile:\n{ran.stderr}")
    return [Compiled(**result) for result in json.loads(ran.stdout.splitlines()[-1])]


def _compile(
    module: str, name: str, types: dict, constants: dict, capability: int, warps: int, stages: int
) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(importlib.import_module(module), name)
    constants, aligned = dict(constants), {}

    def kind_of(given: Any, *path: int) -> Any:
        if isinstance(given, list):
            return tuple(kind_of(each, *path, i) for i, each in enumerate(given))
        if given == 1:
            constants[path] = 1
            return "constexpr"
        if given.startswith("*") or given.endswith(":16"):
            aligned[path] = [["tt.divisibility", 16]]
        return given.removesuffix(":16")

    signature = {
        arg: "constexpr" if arg in constants else kind_of(types[arg], i) for i, arg in enumerate(function.arg_names)
    }
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    copies, ptx = r"\.global\.v(4\.b32|2\.b64)", compiled.asm["ptx"]
    loads = re.search("ld" + copies, ptx) or re.search(r"cp\.async\.c[ag]\.shared\.global.* 0x10", ptx)
    wide = bool(loads and re.search("st" + copies, ptx))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        ((_, registers, stack),) = resources(path)
    return Compiled(len(compiled.asm["cubin"]), registers, stack, compiled.metadata.shared, wide)


if __name__ == "__main__":
    print(json.dumps([asdict(_compile(**kernel)) for kernel in json.load(sys.stdin)]))
