"""Programs run once a rank, in the environment that torchrun makes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def spawned(worker: str, *arguments: Any, ranks: int = 2) -> list[Any]:
    """Runs a program once a rank; returns the JSON that each rank wrote."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks),
              "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(here), *(p for p in sys.path if p)])}
    running = [subprocess.Popen([sys.executable, "-c", worker, *map(str, arguments)], env={**common, "RANK": str(rank)},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for rank in range(ranks)]
    ended = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * ranks, "\n".join(error for _, error in ended)
    return [json.loads(out) for out, _ in ended]
