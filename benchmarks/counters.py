"""The processor's own counters, by `perf stat` on this process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

from inpaint_fast.benchmarks.harness import WARM_UP, Run

EVENTS = ("cycles", "instructions", "cache-references", "cache-misses")
ATTACH_S = 0.3  # perf takes less to begin


def counted(run: Run, calls: int) -> tuple[dict[str, float], str]:
    """Event -> its number in one call, of the mean of so many; and why none is there, or "".

    Of EVENTS those that this processor counts and this user may see. Threads that the calls start are counted if they
    were there before, as OpenMP's are.
    """
    if shutil.which("perf") is None:
        return {}, "perf is not installed"
    for _ in range(WARM_UP):
        run()
    command = ["perf", "stat", "-x", ";", "-e", ",".join(EVENTS), "-p", str(os.getpid())]
    environment = os.environ | {"LC_ALL": "C"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as perf:
        time.sleep(ATTACH_S)
        if perf.poll() is None:
            for _ in range(calls):
                run()
            perf.send_signal(signal.SIGINT)  # its way to end
        _, said = perf.communicate()
    lines = [line.split(";") for line in said.splitlines()]
    counts = {}
    for number, *fields in lines:
        event = next((event for event in EVENTS if any(text.split(":")[0] == event for text in fields)), None)
        if event and number.strip().isdecimal():
            counts[event] = int(number) / calls
    if counts:
        return counts, ""
    words = "; ".join(dict.fromkeys(number.strip() for number, *_ in lines))  # "<not supported>", or what forbids it
    return {}, f"perf stat says {words[:150]!r}"
