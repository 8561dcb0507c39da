"""Learning by gradient on several ranks: as one does, and never from different states."""

import shutil

import pytest
import torch
from ranks import spawned
from test_loop import family, run, stop_after

from verossim.training import Engine, loop

WORKER = """
import json, sys
import torch
from slopes import Denoiser, numbers, settled, stream
from verossim.training import Engine, loop, train
torch.set_num_threads(1)
loop.REPORT_SECONDS = 0.0  # every step is reported
engine = Engine.start()
torch.manual_seed(engine.rank)
made, data = Denoiser(Denoiser.Config()), numbers()
config = settled(samples=1600, sharded=sys.argv[1] == "sharded", accumulate=2 if sys.argv[1] == "rounds" else 1)
course = train(made, stream(data, 32, engine.rank, engine.ranks), config, data=data, seed=5, engine=engine)
weights = [engine.whole(p.detach()).flatten().tolist() for p in made.parameters()]
if engine.ranks > 1:
    torch.distributed.barrier()  # none leaves while another still speaks to it
engine.close()
sys.stdout.write(json.dumps({"weights": weights, "loss": course.curve[-1][1]}))
"""


@pytest.mark.parametrize("way", ["wrapped", "rounds", "sharded"])
def test_two_ranks_equal_one(way, monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    told = spawned(WORKER, way)
    one, course = run(samples=1600)
    for rank in told:
        for mine, theirs in zip(one.parameters(), rank["weights"], strict=True):
            assert torch.allclose(mine.flatten(), torch.tensor(theirs), atol=1e-5)
    assert abs(told[0]["loss"] - course.curve[-1][1]) < 1e-5


APART = """
import json, sys
import torch
from slopes import Denoiser, numbers, settled, stream
from verossim.errors import CannotWrite
from verossim.training import Checkpoints, Engine, train
engine, data = Engine.start(), numbers()
torch.manual_seed(0)
made, told = Denoiser(Denoiser.Config()), None
try:
    train(made, stream(data, 32, engine.rank, engine.ranks), settled(samples=1600), data=data, seed=5, engine=engine,
          checkpoints=Checkpoints(sys.argv[1 + engine.rank]))
except CannotWrite as error:
    told = [error.code, error.message]
engine.close()
sys.stdout.write(json.dumps(told))
"""


def test_ranks_that_would_go_on_from_different_states_are_stopped(tmp_path):
    """On nodes without a shared folder only the first one has checkpoints."""
    run(tmp_path / "first", stop_after(family(), 20), samples=1600)
    told = ["RUN_APART", "The ranks stand at [672, none] records."]
    assert spawned(APART, tmp_path / "first", tmp_path / "second") == [told, told]
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    assert spawned(APART, tmp_path / "first", tmp_path / "second") == [None, None]


def test_the_engine_on_its_own_adds_nothing():
    engine = Engine()
    part = {"a": torch.ones(2)}
    assert engine.sum(part) is part and engine.share(part) is part and engine.gather(part["a"]) is part["a"]
