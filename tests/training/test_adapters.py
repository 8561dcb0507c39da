"""Runs of low-rank adapters: their state is theirs alone, and they go on bit for bit, in one process or two."""

import os
import signal

import torch
from ranks import spawned

from verossim.data.loader import Loader
from verossim.families.autoregressive import Autoregressive
from verossim.spaces import Batch, Discrete
from verossim.training import Checkpoints, Engine, InMemory, Settled, train

SPACE = Discrete(shape=(9,), vocabulary=6, pad=5, start=4, stop=3)
RECORDS, BATCH, STEPS, RANK = 70, 16, 12, 2


def data() -> InMemory:
    x = torch.randint(3, (RECORDS, 9), generator=torch.Generator().manual_seed(2))
    x[:, 0] = ~SPACE.start
    return InMemory(Batch(x, None, (x >= 0).sum(dim=1).float(), torch.arange(RECORDS)))


def base() -> Autoregressive:
    torch.manual_seed(3)
    return Autoregressive(Autoregressive.Config(width=16, blocks=2), SPACE)


def learned(folder, stop: int | None = None) -> Autoregressive:
    """A run of adapters in a folder; its process is told to end in the middle of step number `stop`."""
    torch.manual_seed(0)
    made = Autoregressive(Autoregressive.Config(width=16, blocks=2, adapter_rank=RANK), SPACE)
    made.go_on(base().state_dict())
    loss, seen = made.loss, []

    def signalled(batch, turn):
        seen.append(len(batch.x))
        if stop is not None and len(seen) == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(batch, turn)
    made.loss = signalled
    split = data()
    train(made, lambda samples: Loader(split, BATCH, 4, samples), Settled(samples=STEPS * BATCH, batch=BATCH, rate=1e-2,
                                                                         optimizer="muon"),
          data=split, seed=4, checkpoints=Checkpoints(folder))
    return made


def test_a_run_that_was_killed_goes_on_with_the_same_bits_and_keeps_adapters_alone(tmp_path):
    whole = learned(tmp_path / "whole")
    learned(tmp_path / "cut", 5)
    cut = learned(tmp_path / "cut")
    kept, again = (Checkpoints(tmp_path / name).newest().tensors for name in ("whole", "cut"))
    assert kept.keys() == again.keys() and all(torch.equal(kept[name], again[name]) for name in kept)
    assert {name.rpartition(".")[2].partition("/")[0] for name in kept if "doctor" not in name} == {"lora_A", "lora_B"}
    sizes = {name: tensor.numel() for name, tensor in kept.items() if not name.startswith("doctor/")}
    adapters = sum(p.numel() for p in whole.parameters())
    assert sum(sizes.values()) <= 4 * adapters + 100 < sum(p.numel() for p in base().parameters())
    x = data().whole.x[:8]
    assert torch.equal(whole.log_prob(x).log_prob, cut.log_prob(x).log_prob)
    assert whole.log_prob(x).log_prob.sum() > base().log_prob(x).log_prob.sum()


def test_what_stands_still_is_as_it_was(tmp_path):
    made = learned(tmp_path)
    for parameter in made.parameters():
        parameter.data.zero_()
    x = data().whole.x
    assert torch.equal(made.log_prob(x).log_prob, base().log_prob(x).log_prob)


RANKED = """
import json, sys
import torch
from test_adapters import ranked
from verossim.training import Engine
torch.set_num_threads(1)
engine = Engine.start()
weights = ranked(engine, *sys.argv[1:])
torch.distributed.barrier()  # none leaves while another still speaks to it
engine.close()
sys.stdout.write(json.dumps({"weights": weights}))
"""


def ranked(engine: Engine, *sharded: str) -> list[float]:
    """The adapters of a labelled model after a run on this rank and others."""
    label, space = Discrete(shape=(), vocabulary=2, pad=-1), Discrete(shape=(6,), vocabulary=5, pad=4, start=3)
    torch.manual_seed(1)
    under = Autoregressive(Autoregressive.Config(width=16, blocks=2), space, label)
    made = Autoregressive(Autoregressive.Config(width=16, blocks=2, adapter_rank=2), space, label)
    made.go_on(under.state_dict())
    x = torch.randint(3, (96, 6), generator=torch.Generator().manual_seed(3))
    x[:, 0], x[::2, 4:] = ~3, 4
    split = InMemory(Batch(x, torch.arange(96) % 2, (x >= 0).sum(dim=1) - 2.0 * (x[:, 5] == 4), torch.arange(96)))
    config = Settled(samples=96, batch=16, rate=1e-3, optimizer="adamw", sharded=bool(sharded))
    train(made, lambda samples: Loader(split, 16, 3, samples, engine.rank, engine.ranks), config, data=split, seed=3,
          engine=engine)
    return torch.cat([p.detach().flatten() for p in made.parameters()]).tolist()


def test_two_ranks_are_as_one():
    first, second = spawned(RANKED)
    alone = ranked(Engine())
    assert first["weights"] == second["weights"] and any(alone)
    assert torch.allclose(torch.tensor(first["weights"]), torch.tensor(alone), atol=1e-5)
