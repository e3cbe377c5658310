"""Build of the extension module inpaint_fast._C. Everything else about the package is in pyproject.toml.

What is compiled follows from the layout alone, so that a new operator needs no line here:

    csrc/module.cpp, csrc/common/*.cpp      the module and what all operators share
    csrc/<stem>/cpu_ops.cpp                 checks, allocation and registration (PyTorch's stable ABI): the CPU
    csrc/<stem>/cpu/kernels.cpp             its kernels, compiled once for each instruction set
    csrc/<stem>/cpu/amx.cpp                 products on AMX, where a stem has some
    csrc/<stem>/python.cpp                  functions of the module itself, where a stem has some

and in a build with CUDA besides

    csrc/<stem>/cuda_ops.cpp                checks, allocation and registration: CUDA
    csrc/<stem>/cuda/kernels.cu             its kernels; no torch header, so no CUDA build of torch is needed
    csrc/<stem>/cuda_python.cpp             functions of the module itself

Where no compiler is found nothing is compiled, which the build and every import say, and the package runs on PyTorch's
own operators. The reason lies where the module would, in inpaint_fast/_not_compiled.txt.

Environment:
    INPAINT_FAST_EXTENSION 1: compile or fail; 0: compile nothing; unset: compile when a compiler is found
    INPAINT_FAST_CUDA      1: build the CUDA kernels or fail; 0: leave them out; unset: build them when nvcc is found
    TORCH_CUDA_ARCH_LIST   GPU architectures, as for PyTorch's own extensions (default: 8.0;9.0a+PTX)
    CUDA_HOME              the CUDA toolkit (default: the one whose nvcc is on PATH, then /usr/local/cuda)
    CXX, CXXFLAGS          compiler and further flags
    INPAINT_FAST_CPU_FLAGS compile the CPU kernels once, with these flags (-march=native), and not for each instruction
                           set; the module calls what it has then "baseline", and runs where these flags may
    MAX_JOBS               compile jobs at a time (default: one a processor, bounded by 1.5 GB of free memory each)
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
MIN_TORCH = (2, 11)
MIN_NVCC = (12, 0)
DEFAULT_ARCH_LIST = "8.0;9.0a+PTX"
# The first version whose stable ABI has all we use; a build then runs on every torch from it on.
TORCH_TARGET_VERSION = "0x020b000000000000"
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-psabi", "-Wno-unknown-pragmas"]
# GCC 12 warns of variables that its own intrinsics headers leave unset on purpose.
KERNEL_FLAGS = ["-O3", "-ffp-contract=fast", "-Wno-maybe-uninitialized", "-Wno-uninitialized"]
X86_FLAGS = {
    "baseline": ["-O1"],  # no processor of the last ten years runs it for its speed: it is compiled the quicker
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"],
}


NOTE = "_not_compiled.txt"
"""Beside the module, or in its place: why nothing was compiled (inpaint_fast/_extension.py reads it)."""


class BuildError(SystemExit):
    """A reason not to build, in one sentence that says what to type."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"\ninpaint_fast: {sentence}\n")


def torch_folder() -> Path:
    """The installed torch package, found without importing it (an import takes seconds)."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError(
            "PyTorch is needed to build the extension and was not found in this Python. "
            "Type: pip install 'torch>=2.11' setuptools ninja pybind11, then pip install --no-build-isolation ."
        )
    folder = Path(spec.origin).parent
    version = torch_version(folder)
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_TORCH:
        raise BuildError(f"torch {version} is installed and 2.11 or later is needed. Type: pip install 'torch>=2.11'")
    return folder


def torch_version(folder: Path) -> str:
    found = re.search(r"__version__ = '([^']+)'", (folder / "version.py").read_text())
    return found.group(1) if found else "0.0"


def compiler_command() -> list[str]:
    return shlex.split(os.environ.get("CXX", "")) or ["c++" if sys.platform == "darwin" else "g++"]


def why_nothing_is_compiled() -> str | None:
    """Why the module is left out; None: it is built."""
    wish = os.environ.get("INPAINT_FAST_EXTENSION", "")
    if wish not in ("", "0", "1"):
        raise BuildError(f"INPAINT_FAST_EXTENSION is {wish!r}; it takes 0, 1 or nothing.")
    if wish == "0":
        return "as INPAINT_FAST_EXTENSION=0 asks"
    name = compiler_command()[0]
    if wish == "1" or os.environ.get("CXX") or os.environ.get("INPAINT_FAST_CUDA") == "1" or shutil.which(name):
        return None
    return f"since the C++ compiler {name} was not found"


def compiler() -> list[str]:
    command = compiler_command()
    if shutil.which(command[0]) is None:
        raise BuildError(
            f"the C++ compiler {command[0]} was not found. "
            "Type: apt-get install g++ (Debian, Ubuntu), or set CXX to a C++17 compiler."
        )
    return command


def knows_amx(cxx: list[str]) -> bool:
    """Whether this compiler's assembler does: binutils has since 2.35 (2020)."""
    command = [*cxx, "-x", "c++", "-c", "-", "-o", os.devnull]
    return subprocess.run(command, input=b'asm("tilerelease");', capture_output=True).returncode == 0


class Cuda:
    """The CUDA toolkit to build with: nvcc, its version and the architectures; or the reason for none."""

    def __init__(self) -> None:
        self.nvcc: Path | None = None
        self.version = self.left_out = ""
        wish = os.environ.get("INPAINT_FAST_CUDA", "")
        if wish not in ("", "0", "1"):
            raise BuildError(f"INPAINT_FAST_CUDA is {wish!r}; it takes 0, 1 or nothing.")
        try:
            if wish == "0":
                self.left_out = "left out by INPAINT_FAST_CUDA=0"
            else:
                self.find()
        except LookupError as reason:
            if wish == "1":
                raise BuildError(f"INPAINT_FAST_CUDA=1 asks for the CUDA kernels, but {reason}") from None
            self.nvcc, self.left_out = None, str(reason)

    def find(self) -> None:
        homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
        on_path = shutil.which("nvcc")
        if on_path:
            homes.append(str(Path(on_path).resolve().parent.parent))
        homes.append("/usr/local/cuda")
        for home in filter(None, homes):
            if (nvcc := Path(home) / "bin" / "nvcc").exists():
                break
        else:
            raise LookupError("nvcc was not found: install the CUDA toolkit 12 or 13, or set CUDA_HOME to it.")
        text = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True).stdout
        release = re.search(r"release (\d+)\.(\d+)", text)
        if not release:
            raise LookupError(f"{nvcc} --version gave no version: set CUDA_HOME to a whole CUDA toolkit.")
        if tuple(map(int, release.groups())) < MIN_NVCC:
            raise LookupError(
                f"{nvcc} is version {release[1]}.{release[2]} and 12.0 or later is needed: set CUDA_HOME."
            )
        # The nvcc on PATH may be a script before the real one, which alone knows where its toolkit lies.
        plan = subprocess.run([str(nvcc), "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
        top = re.search(r"TOP=(.+)", plan)
        self.home = Path(top.group(1).strip()).resolve() if top else nvcc.parent.parent
        self.nvcc, self.version = nvcc, f"{release[1]}.{release[2]}"
        self.arch_list = os.environ.get("TORCH_CUDA_ARCH_LIST") or DEFAULT_ARCH_LIST

    def flags(self) -> list[str]:
        """-gencode flags of an arch list such as '8.0;9.0a+PTX'."""
        flags = []
        for arch in re.split(r"[;\s,]+", self.arch_list.strip()):
            found = re.fullmatch(r"(\d+)\.(\d+[af]?)(\+PTX)?", arch)
            if not found:
                raise BuildError(
                    f"TORCH_CUDA_ARCH_LIST names {arch!r}; it takes numbers such as {DEFAULT_ARCH_LIST!r}."
                )
            number = found.group(1) + found.group(2)
            flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
            if found.group(3):
                flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
        # The kernels as small as nvcc can make them: they are most of a wheel.
        small = tuple(map(int, self.version.split("."))) >= (12, 8)
        return [*flags, "--compress-mode=size"] if small else flags


def jobs() -> int:
    if wish := os.environ.get("MAX_JOBS"):
        if not (wish.isdecimal() and int(wish)):
            raise BuildError(f"MAX_JOBS is {wish!r}; it takes a whole number from 1 on, or nothing.")
        return int(wish)
    count = os.cpu_count() or 1
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return count
    return max(1, min(count, int(free / 1.5e9)))


def git_commit() -> str:
    answer = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else "unknown"


def write_if_changed(path: Path, text: str) -> None:
    """So that an unchanged file is not compiled again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def ninja_command() -> list[str]:
    if importlib.util.find_spec("ninja"):
        return [sys.executable, "-m", "ninja"]
    if shutil.which("ninja"):
        return ["ninja"]
    raise BuildError("ninja is needed to build the extension. Type: pip install ninja")


def pybind11_include() -> str:
    spec = importlib.util.find_spec("pybind11")
    if spec is None or spec.origin is None:
        raise BuildError("pybind11 is needed to build the extension. Type: pip install pybind11")
    return str(Path(spec.origin).parent / "include")


class NinjaBuild(build_ext):
    """Writes one build.ninja for the whole module and runs it: parallel, incremental, flags for each file."""

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        output.parent.mkdir(parents=True, exist_ok=True)
        note = output.with_name(NOTE)
        if (reason := why_nothing_is_compiled()) is not None:
            print(f"inpaint_fast: nothing is compiled, {reason}; PyTorch's own operators will run", file=sys.stderr)
            output.unlink(missing_ok=True)  # of an earlier build: a wheel would take it along
            note.write_text(reason)
            return
        note.unlink(missing_ok=True)
        folder = Path(self.build_temp).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self.write_ninja(folder / "build.ninja", output)
        status = {"NINJA_STATUS": "inpaint_fast [%f/%t, %es] "}
        command = [*ninja_command(), "-C", str(folder), "-j", str(jobs())]
        ran = subprocess.run(command, stdout=sys.stderr, env=os.environ | status)
        if ran.returncode:
            raise BuildError(
                "the extension did not compile; the compiler's words stand above. "
                "INPAINT_FAST_CUDA=0 builds without CUDA."
            )

    def copy_extensions_to_source(self) -> None:
        """For --inplace and editable installs, which build elsewhere first: the reason, too, or its absence."""
        super().copy_extensions_to_source()
        built = Path(self.build_lib, self.get_ext_filename("inpaint_fast._C"))
        beside = ROOT / "inpaint_fast" / built.name
        if (note := built.with_name(NOTE)).exists():
            beside.unlink(missing_ok=True)
            beside.with_name(NOTE).write_text(note.read_text())
        else:
            beside.with_name(NOTE).unlink(missing_ok=True)

    def write_ninja(self, path: Path, output: Path) -> None:
        torch, cuda, cxx = torch_folder(), Cuda(), compiler()
        flags = os.environ.get("INPAINT_FAST_CPU_FLAGS")
        x86 = flags is None and platform.machine().lower() in ("x86_64", "amd64")
        isas = X86_FLAGS if x86 else {"baseline": shlex.split(flags or "")}
        includes = [f"-I{ROOT / 'csrc'}", f"-I{torch / 'include'}"]
        # -O3 is for kernels: the rest only compiles longer. Errors name csrc/..., wherever it was built.
        common = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", *WARNINGS]
        common.append(f"-ffile-prefix-map={ROOT}/=")
        wishes = shlex.split(os.environ.get("CXXFLAGS", ""))
        defines = [f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}", "-DTORCH_STABLE_ONLY"]
        if x86:
            defines.append("-DINPAINT_FAST_X86")
        amx = ["-DINPAINT_FAST_AMX"] if x86 and knows_amx(cxx) else []
        defines += amx
        if cuda.nvcc:
            defines.append("-DUSE_CUDA")  # for torch's headers
        facts = {
            "torch": torch_version(torch),
            "compiler": subprocess.run([*cxx, "--version"], capture_output=True, text=True).stdout.split("\n")[0],
            "cuda": cuda.version if cuda.nvcc else "",
            "cuda_left_out": cuda.left_out,
            "cuda_archs": cuda.arch_list if cuda.nvcc else "",
            "instruction_sets": " ".join(isas),
            "commit": git_commit(),
        }
        # A header, not a -D: a changed commit then rebuilds one file.
        text = "".join(f'    {{"{key}", {json.dumps(value)}}},\n' for key, value in facts.items())
        write_if_changed(path.parent / "build_facts.h", text)

        def quote(words: list[str]) -> str:
            return " ".join(shlex.quote(word) for word in words).replace("$", "$$")

        lines = [
            "ninja_required_version = 1.5",
            "rule cxx",
            f"  command = {quote(cxx)} -MMD -MF $out.d $flags -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = C++ $out",
            "rule nvcc",
            f"  command = {quote([str(cuda.nvcc)])} -MD -MF $out.d $flags -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = CUDA $out",
            "rule link",
            f"  command = {quote(cxx)} $in -o $out $flags",
            "  description = link $out",
        ]

        objects: dict[str, list[str]] = {"host": [], "kernels": []}

        def compile_file(rule: str, source: Path, name: str, flags: list[str], kind: str = "host") -> None:
            objects[kind].append(f"{name}.o")
            lines.append(f"build {name}.o: {rule} {str(source).replace(' ', '$ ')}")
            lines.append(f"  flags = {quote(flags)}")

        def sources(*patterns: str) -> list[tuple[Path, str]]:
            """Files of csrc/ with the names of their objects."""
            found = [path for pattern in patterns for path in sorted((ROOT / "csrc").glob(pattern))]
            return [(path, "_".join(path.relative_to(ROOT / "csrc").with_suffix("").parts)) for path in found]

        # Ninja starts jobs in the order of this file: the longest first, so that no processor waits for one in the end.
        link = ["-shared", *shlex.split(os.environ.get("LDFLAGS", ""))]
        if cuda.nvcc:
            host = ["-Xcompiler", "-fPIC,-fvisibility=hidden", "-ccbin", cxx[0]]
            for source, name in sources("*/cuda/kernels.cu"):
                compile_file("nvcc", source, name, ["-std=c++17", "-O3", *host, *includes[:1], *cuda.flags()])
            lib = cuda.home / ("lib64" if (cuda.home / "lib64").exists() else "lib")
            link += [f"-L{lib}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
        for source, name in sources("*/cpu/kernels.cpp"):
            for isa, flags in isas.items():
                chosen = [*KERNEL_FLAGS, f"-DINPAINT_FAST_ISA={isa}", *flags, *wishes]
                compile_file("cxx", source, f"{name}_{isa}", [*common, *includes[:1], *chosen], "kernels")
        for source, name in sources("*/cpu/amx.cpp"):
            compile_file("cxx", source, name, [*common, *includes[:1], *KERNEL_FLAGS, *amx, *wishes])
        # One file that includes all of them: pybind11's headers take far longer than what is in them.
        python = path.parent / "python.cpp"
        files = sources("module.cpp", "*/python.cpp", *(["*/cuda_python.cpp"] if cuda.nvcc else []))
        write_if_changed(python, "".join(f'#include "{source.relative_to(ROOT / "csrc")}"\n' for source, _ in files))
        # Before torch's own copy of pybind11, which refuses the stable ABI's macros (torch 2.11).
        first = [f"-I{sysconfig.get_paths()['include']}", f"-I{pybind11_include()}", f"-I{path.parent}"]
        compile_file("cxx", python, "python", [*common, *defines, *first, *includes, *wishes])
        for source, name in sources("*/cpu_ops.cpp", *(["*/cuda_ops.cpp"] if cuda.nvcc else []), "common/*.cpp"):
            compile_file("cxx", source, name, [*common, *defines, *includes, *wishes])
        if sys.platform == "darwin":
            link += ["-undefined", "dynamic_lookup"]
        else:
            # libtorch.so names whatever else this torch has (libtorch_cuda.so), so that symbols are found in it too.
            link += [f"-L{torch / 'lib'}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]
        # Kernels last: of an inline function the linker keeps the first copy, which every processor must run.
        inputs = " ".join(objects["host"] + objects["kernels"])
        lines += [f"build {str(output).replace(' ', '$ ')}: link {inputs}", f"  flags = {quote(link)}"]
        path.write_text("\n".join(lines) + "\n")


setup(
    ext_modules=[Extension("inpaint_fast._C", sources=[], optional=True)],  # its file may not be there
    cmdclass={"build_ext": NinjaBuild},
)
