"""Timing for benchmarks: interleaved rounds, other processes watched, the machine's limits, results as JSON lines.

Every timing is the median of rounds A B C A B C; one taken while other processes used more than QUIET cores is taken again.
Compare ratios within a run, never seconds across runs.
"""

import datetime
import functools
import gc
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch

HERE = Path(__file__).resolve().parent
QUIET = 0.15  # cores
Timed = dict[str, Callable[[], Any]]


def busy() -> tuple[float, float]:
    """CPU seconds of the whole machine and of this process so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    whole = psutil.cpu_times()
    return sum(whole) - whole.idle - whole.iowait, own.ru_utime + own.ru_stime


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of one call, and the cores that other processes used meanwhile."""
    gc.collect()
    machine, own, start = *busy(), time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    machine_after, own_after = busy()
    return seconds, max(0.0, machine_after - machine - own_after + own) / max(seconds, 0.1)


def interleaved(functions: Timed, rounds: int, patience: float = 20.0) -> dict[str, dict[str, float]]:
    """Median, least and most seconds of each function over rounds A B C A B C, after one call each to warm up."""
    return _rounds({name: functools.partial(timed, function) for name, function in functions.items()}, rounds, patience)


def apart(functions: Timed, rounds: int, patience: float = 20.0) -> dict[str, dict[str, float]]:
    """The same, each function in a process of its own: the thresholds of the heap, for one, that a function sets are not the
    others'. This process is forked, so its threads must not have computed before."""
    workers = {name: _Worker(function) for name, function in functions.items()}
    found = _rounds({name: worker.timed for name, worker in workers.items()}, rounds, patience)
    for worker in workers.values():
        worker.process.terminate()
    return found


class _Worker:
    """A process that times a function each time it is asked to."""

    def __init__(self, function: Callable[[], Any]):
        self.pipe, there = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(target=self._serve, args=(function, there), daemon=True)
        self.process.start()
        there.close()  # so that its end tells that the process has ended

    @staticmethod
    def _serve(function: Callable[[], Any], pipe: Connection) -> None:
        while True:
            pipe.recv()
            pipe.send(timed(function))

    def timed(self) -> tuple[float, float]:
        """Seconds of one call, and the cores that others used meanwhile. Raises EOFError where the call failed."""
        self.pipe.send(None)
        seconds, others = self.pipe.recv()
        return seconds, others


def _rounds(timings: dict[str, Callable[[], tuple[float, float]]], rounds: int, patience: float) -> dict[str, dict[str, float]]:
    for timing in timings.values():
        timing()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in timings}
    for _ in range(rounds):
        for name, timing in timings.items():
            until = time.monotonic() + patience
            while (reading := timing())[1] > QUIET and time.monotonic() < until:
                time.sleep(0.5)
            found[name].append(reading)
    return {name: {"seconds": statistics.median(s for s, _ in readings), "least": min(s for s, _ in readings),
                   "most": max(s for s, _ in readings), "others": round(max(o for _, o in readings), 2)}
            for name, readings in found.items()}


def extra_mib(function: Callable[[], Any]) -> float:
    """Peak resident memory of a call above what there was before it, looked at every 2 ms by a thread."""
    process, done = psutil.Process(), threading.Event()
    gc.collect()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)
    thread = threading.Thread(target=watch)
    thread.start()
    function()
    done.set()
    thread.join()
    return (peak - before) / 2**20


def several(text: str) -> range:
    """The numbers from FIRST to before LAST, of "FIRST:LAST"."""
    first, last = text.split(":")
    return range(int(first), int(last))


def limits() -> dict[str, float]:
    """The machine's matrix rates (GFLOP/s in float32 and float64) and its memory's reading rate (GB/s), just now."""
    found = {}
    for name, dtype in (("gemm32", torch.float32), ("gemm64", torch.float64)):
        a, b = torch.randn(2, 2048, 2048, dtype=dtype)
        found[name] = 2 * 2048**3 / min(timed(lambda a=a, b=b: a @ b)[0] for _ in range(4)) / 1e9
    long = torch.ones(1 << 26)
    found["reading"] = 4 * len(long) / min(timed(long.sum)[0] for _ in range(4)) / 1e9
    return found


def host(*packages: str) -> dict[str, Any]:
    """Date, commit, hardware and the versions of packages that are there."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    told = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in told if "model name" in line), platform.machine())
    versions = {}
    for name in ("torch", "numpy", *packages):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"date": datetime.date.today().isoformat(), "commit": git.stdout.strip(), "cpu": cpu,
            "capability": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "versions": versions}


def write(file: str, **fields: Any) -> None:
    """Appends a line to a file of results."""
    (HERE / "results").mkdir(exist_ok=True)
    with (HERE / "results" / file).open("a") as out:
        out.write(json.dumps(fields) + "\n")


def tell(file: str, lines: Iterable[dict[str, Any]], dry: bool = False) -> None:
    """Prints lines of results, and appends them to their file unless it is a dry run."""
    for line in lines:
        print(json.dumps(line))
        if not dry:
            write(file, **line)
