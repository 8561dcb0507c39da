"""Several processes learn what one learns."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import Normals, line

from verossim.training import Engine, Learning, begin, learn

WORKER = """
import json, sys
import torch
from tiny import Normals, line
from verossim.training import Engine, Learning, begin, learn

torch.set_num_threads(1)
records, stepwise = int(sys.argv[1]), sys.argv[2] == "stepwise"
engine = Engine.start()
data = line(records, (-1.0, 1.0))
family = Normals(Normals.Config(components=2))
begin(family, data, 5 if engine.first else 6, engine)
history = learn(family, data, batch=300, config=Learning(iterations=12, tolerance=0.0, stepwise=stepwise), engine=engine)
rows = engine.gather(torch.full((engine.rank + 1, 2), float(engine.rank)))
told = {"coordinates": family.coordinates().tolist(), "objectives": history.objectives, "rows": rows.tolist(),
        "first": engine.first, "ranks": engine.ranks}
engine.close()
sys.stdout.write(json.dumps(told))
"""


def spawned(*arguments, ranks=2):
    """Runs the worker once a rank, in the environment that torchrun makes; returns what each rank told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks),
              "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(here), *(p for p in sys.path if p)])}
    running = [subprocess.Popen([sys.executable, "-c", WORKER, *map(str, arguments)], env={**common, "RANK": str(rank)},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for rank in range(ranks)]
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * ranks, "\n".join(error for _, error in ended)
    return [json.loads(out) for out, _ in ended]


@pytest.mark.parametrize("records", [2_000, 250])  # of 250 records the second rank has none
def test_two_processes_equal_one(records):
    family = Normals(Normals.Config(components=2))
    data = line(records, (-1.0, 1.0))
    begin(family, data, 5)
    history = learn(family, data, batch=300, config=Learning(iterations=12, tolerance=0.0))
    zero, one = spawned(records, "sweeps")
    assert zero["coordinates"] == one["coordinates"]
    assert zero["coordinates"] == pytest.approx(family.coordinates().tolist(), abs=1e-9)
    assert zero["objectives"] == pytest.approx(list(history.objectives), abs=1e-9)
    assert (zero["first"], one["first"], one["ranks"]) == (True, False, 2)
    assert zero["rows"] == one["rows"] == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]


def test_stepwise_ranks_agree_when_one_has_more_batches():
    zero, one = spawned(700, "stepwise")  # three batches: two for the first rank, one for the second
    assert zero["coordinates"] == one["coordinates"]
    assert all(-5 < objective < 0 for objective in zero["objectives"])


def test_alone_every_verb_is_the_identity():
    engine = Engine.start()
    parts = {"a": torch.ones(2, 3)}
    assert (engine.rank, engine.ranks, engine.first) == (0, 1, True)
    assert engine.sum(parts) is parts
    assert engine.share(parts) is parts
    assert engine.gather(parts["a"]) is parts["a"]
    engine.close()
