"""Nothing is lost: runs of both families, killed and failed in every way, go on as if nothing had happened."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from failing import CALLS, fail
from ranks import spawned
from slopes import Denoiser, numbers, settled

from verossim.data.loader import Loader
from verossim.errors import CannotWrite
from verossim.families.autoregressive import Autoregressive
from verossim.families.diffusion import Diffusion
from verossim.families.gan import GAN
from verossim.families.vae import VAE
from verossim.folders import partial
from verossim.spaces import Batch, Continuous, Discrete
from verossim.training import Checkpoints, InMemory, Journal, Settled, loop, train
from verossim.training.checkpoint import Checkpoint

HERE = Path(__file__).parent
PICTURES = Continuous(shape=(1, 6, 5), axes=("channel", "height", "width"), levels=256)
CLASSES = Discrete(shape=(), vocabulary=3, pad=-1)
TEXTS = Discrete(shape=(9,), vocabulary=6, pad=5, start=4, stop=3)
RECORDS, BATCH, STEPS = 70, 16, 20  # a batch is no divisor of an epoch


def pictures() -> InMemory:
    x = torch.rand(RECORDS, 1, 6, 5, generator=torch.Generator().manual_seed(2))
    return InMemory(Batch(((x * 255).round() + 0.5) / 128 - 1, torch.arange(RECORDS) % 4 - 1, torch.ones(RECORDS),
                          torch.arange(RECORDS)))


def texts() -> InMemory:
    x = torch.randint(3, (RECORDS, 9), generator=torch.Generator().manual_seed(2))
    x[:, 0] = ~TEXTS.start
    x[::3, 6], x[::3, 7:] = TEXTS.stop, TEXTS.pad
    return InMemory(Batch(x, torch.arange(RECORDS) % 4 - 1, (x >= 0).sum(dim=1).float(), torch.arange(RECORDS)))


def learned(kind, folder: Path, ahead: int, stop: int | None = None, **settings):
    """A run of a family in a folder; its process is told to end in the middle of step number `stop`."""
    torch.manual_seed(0)
    given = {GAN: {"depth": 1, "augment": 0.4}, Autoregressive: {"blocks": 2}}.get(kind, {"depth": 1})
    space, data = (TEXTS, texts()) if kind is Autoregressive else (PICTURES, pictures())
    made = kind(kind.Config(width=8, **given), space, CLASSES)
    made.examined = 4 if made.examined else 0  # exams steer what is learned: they are part of the state
    loss, seen = made.loss, []

    def signalled(batch, turn):
        before = sum(seen)
        seen.append(len(batch.x) if turn.name == made.turns[0].name else 0)
        if stop is not None and before <= stop * BATCH < sum(seen):
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(batch, turn)
    made.loss = signalled
    config = Settled(samples=STEPS * BATCH, batch=BATCH, rate=1e-3, optimizer=kind.optimizer, **settings)
    course = train(made, lambda samples: Loader(data, BATCH, 4, samples, prefetch=ahead), config, data=data, seed=4,
                   held=InMemory(data.slice(0, 20)), checkpoints=Checkpoints(folder))
    assert kind is not GAN or float(made.p) > 0
    return course


@pytest.mark.parametrize(("ahead", "accumulate", "precision"), [(0, 4, "fp32"), (2, 1, "bf16")])
@pytest.mark.parametrize("kind", [VAE, Diffusion, GAN, Autoregressive])
def test_a_run_that_was_killed_in_an_epoch_ends_with_the_same_bits(tmp_path, kind, ahead, accumulate, precision):
    settings = {"accumulate": accumulate, "precision": precision}
    learned(kind, tmp_path / "whole", 2 - ahead, **settings)  # how many batches are made ahead changes nothing either
    for stop in (6, 5):
        course = learned(kind, tmp_path / "cut", ahead, stop, **settings)
        assert course.interrupted == signal.SIGTERM and course.samples % RECORDS
    assert learned(kind, tmp_path / "cut", ahead, **settings).interrupted is None
    whole, cut = (Checkpoints(tmp_path / name).newest().tensors for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and ("doctor/made" in cut) == (kind is GAN)
    own = set() if kind is Autoregressive else {"buffer"}
    assert {name.partition("/")[0] for name in cut} - {"doctor"} == {"raw", "average", "optimizer"} | own
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name
    moved = [name for name, tensor in whole.items() if name.startswith("optimizer/") and tensor.count_nonzero()]
    assert len(moved) > 10


KILLS = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[2])
import torch
import torch._dynamo  # the first step of an optimizer would import it, in every child anew
torch.set_num_threads(1)
from slopes import Denoiser, numbers, settled, stream
from verossim.training import Checkpoints, loop, train
loop.SAVE_SECONDS, loop.SAVE_SHARE = 0.002, 0.5

def child(tell):
    class Told(Checkpoints):
        def save(self, checkpoint):
            os.write(tell, b"s")
            super().save(checkpoint)
            os.write(tell, b".")
    torch.manual_seed(0)
    made, data = Denoiser(Denoiser.Config(width=256)), numbers()
    train(made, stream(data, 32), settled(samples=32 * 1_000_000), data=data, seed=5, checkpoints=Told(sys.argv[1]))

def wait(hear, what):
    while (said := os.read(hear, 1)) != what:
        assert said, "the run has ended by itself"

samples, inside = -1, 0
for number in range(100):
    hear, tell = os.pipe()
    pid = os.fork()
    if not pid:
        child(tell)
    os.close(tell)
    try:
        wait(hear, b".")
        if number % 2:
            wait(hear, b"s")
        time.sleep(random.uniform(0, 0.003 if number % 2 else 0.02))
    finally:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    said = b"s" if number % 2 else b"."
    while more := os.read(hear, 1 << 16):
        said += more
    os.close(hear)
    inside += said.endswith(b"s")
    held = Checkpoints(sys.argv[1])
    now = held.newest()
    assert not held.damaged and now.samples > samples, (number, now.samples, samples)
    samples = now.samples
print(inside)
"""


def test_100_times_kill_9_and_100_times_it_goes_on(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLS, tmp_path, HERE], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 30  # of the kills fell into a save
    assert len(list(tmp_path.iterdir())) <= 4  # two checkpoints, and what the last kill left


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "DISK_FULL"), (errno.EIO, "IO_ERROR")])
def test_whichever_call_of_a_save_fails_an_old_or_the_new_checkpoint_loads(tmp_path, monkeypatch, number, code):
    def at(samples: int) -> Checkpoint:
        return Checkpoint(samples, {"total": 9}, {"raw/w": torch.full((50,), float(samples))})
    met = set()
    for call in CALLS:
        for nth in range(100):
            checkpoints = Checkpoints(tmp_path / f"{call}-{nth}")
            for samples in (1, 2):
                checkpoints.save(at(samples))
            with monkeypatch.context() as patch:
                reached = fail(patch, call, nth, number, False)
                try:
                    checkpoints.save(at(3))
                except CannotWrite as error:
                    met.add(call)
                    assert error.code == code
            found = checkpoints.newest()
            assert found.samples in (2, 3) and (found.tensors["raw/w"] == found.samples).all() and not checkpoints.damaged
            checkpoints.save(at(4))
            assert checkpoints.newest().samples == 4
            assert not [left for left in checkpoints.folder.iterdir() if "partial" in left.name]
            if not reached:
                break
    assert met == {"open", "write", "fsync", "rename", "mkdir"}


def test_a_run_goes_on_while_the_disk_is_full_and_says_so(tmp_path, monkeypatch):
    """Checkpoints, what ships, previews: none can be written in the middle of the run."""
    torch.manual_seed(0)
    made, data, said, asked = Denoiser(Denoiser.Config()), numbers(), [], iter(range(10**6))
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1.0)
    monkeypatch.setattr(loop, "SHOW_SECONDS", 0.0)

    def write(what) -> None:
        (tmp_path / "shown").mkdir(exist_ok=True)
        with partial(tmp_path / "shown" / "one"):
            pass

    def full(batch) -> bool:
        step = next(asked)
        if step == 20:
            fail(patch, "mkdir", 0, errno.ENOSPC, True)
        elif step == 60:
            patch.undo()
        return False
    made.poison = full
    with monkeypatch.context() as patch:
        train(made, lambda samples: Loader(data, 32, 0, samples), settled(), data=data, journal=Journal(None, said.append),
              checkpoints=Checkpoints(tmp_path / "state"), show=write, publish=write)
    codes = [event["code"] for event in said if event["event"] == "warning"]
    assert len(codes) > 2 and set(codes) == {"DISK_FULL"}
    assert Checkpoints(tmp_path / "state").newest().samples == 3200


RANKED = """
import json, os, signal, sys
import torch
from slopes import SPACE, Denoiser, numbers, settled
from verossim.data.loader import Loader
from verossim.families.autoregressive import Autoregressive
from verossim.families.diffusion import Diffusion
from verossim.families.gan import GAN
from verossim.spaces import Batch, Discrete
from verossim.training import Checkpoints, Engine, InMemory, train
torch.set_num_threads(1)
engine = Engine.start()

def run(name, folder, stop):
    data, seen = numbers(96), []
    torch.manual_seed(0)
    kind = {"gan": GAN, "tiny": Denoiser}.get(name, Diffusion)
    if name == "texts":
        made = Autoregressive(Autoregressive.Config(width=8, blocks=2), Discrete(shape=(6,), vocabulary=5, pad=4, start=3))
        x = torch.randint(3, (96, 6), generator=torch.Generator().manual_seed(3))
        x[:, 0], x[::2, 4:] = ~3, 4  # records of two lengths, so that ranks have tokens in different numbers
        data = InMemory(Batch(x, None, (x >= 0).sum(dim=1) - 2.0 * (x[:, 5] == 4), torch.arange(96)))
    else:
        made = Denoiser(Denoiser.Config()) if kind is Denoiser else kind(kind.Config(width=8, depth=1), SPACE)
    made.examined = 2 if kind is GAN else 0
    loss = made.loss
    def noted(batch, turn):
        begins = turn.name == made.turns[0].name
        seen.extend(batch.index.tolist() if begins else [])
        if begins and engine.first and len(seen) * engine.ranks == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(batch, turn)
    made.loss = noted
    published, config = [], settled(samples=192, batch=16, sharded=name == "sharded")
    course = train(made, lambda samples: Loader(data, 16, 3, samples, engine.rank, engine.ranks), config,
                   data=data, seed=3, engine=engine, checkpoints=Checkpoints(folder), publish=published.append,
                   show=lambda samples: None)
    assert all(state.keys() == made.state_dict().keys() for state in published) and bool(published) == engine.first
    if engine.first:
        assert all(torch.equal(value, published[-1][name]) for name, value in made.state_dict().items())
    weights = torch.cat([p.detach().flatten() for p in made.parameters()]).tolist()
    if engine.ranks > 1:
        torch.distributed.barrier()  # none goes on while another still speaks to it
    return {"seen": seen, "samples": course.samples, "weights": weights, "stopped": course.interrupted}

found = {name: run(name, os.path.join(sys.argv[1], name), int(sys.argv[2])) for name in sys.argv[3].split(",")}
engine.close()
sys.stdout.write(json.dumps(found))
"""
KINDS = ("tiny", "diffusion", "sharded", "gan", "texts")


def test_two_ranks_then_one_then_two_see_every_record_once_an_epoch(tmp_path):
    """Every kind on two ranks, one, and two, each time stopped but for the last; then on one rank from first to last."""
    run, one = tmp_path / "run", tmp_path / "whole"
    stages = [spawned(RANKED, folder, stop, ",".join(KINDS), ranks=ranks)
              for folder, ranks, stop in ((run, 2, 48), (run, 1, 64), (run, 2, 10_000), (one, 1, 10_000))]
    for kind in KINDS:
        *parts, (whole,) = [[rank[kind] for rank in stage] for stage in stages]
        assert [stage[0]["samples"] for stage in parts] == [48, 112, 192], kind
        stopped = [[rank["stopped"] for rank in stage] for stage in parts]
        assert stopped == [[15, 15], [15], [None, None]], kind  # rank 0 alone was asked
        seen = [index for stage in parts for step in range(len(stage[0]["seen"]) * len(stage) // 16)
                for rank in stage for index in rank["seen"][step * 16 // len(stage):(step + 1) * 16 // len(stage)]]
        assert sorted(seen[:96]) == sorted(seen[96:]) == list(range(96)) and seen[:96] != seen[96:], kind
        assert seen == whole["seen"], kind
        assert torch.allclose(torch.tensor(parts[-1][0]["weights"]), torch.tensor(whole["weights"]), atol=1e-5), kind


PAIRED = """
import json, sys
import torch
from slopes import SPACE, numbers, settled, stream
from verossim.families.vae import VAE
from verossim.training import Engine, loop, train
torch.set_num_threads(1)
loop.REPORT_SECONDS = 0.0  # every step is reported
engine, data = Engine.start(), numbers()
torch.manual_seed(engine.rank)  # what the first rank begins with, all do
made = VAE(VAE.Config(width=16), SPACE)
course = train(made, stream(data, 32, engine.rank, engine.ranks), settled(samples=50 * 32), data=data, seed=5, engine=engine)
weights = torch.cat([p.detach().flatten() for p in made.parameters()]).tolist()
if engine.ranks > 1:
    torch.distributed.barrier()  # none leaves while another still speaks to it
engine.close()
sys.stdout.write(json.dumps({"weights": weights, "losses": [loss for _, loss, _ in course.curve], "steps": course.steps}))
"""


def test_fifty_steps_of_an_autoencoder_on_two_ranks_are_those_of_one():
    (first, second), (alone,) = spawned(PAIRED), spawned(PAIRED, ranks=1)
    assert first["weights"] == second["weights"] and first["steps"] == alone["steps"] == len(first["losses"]) == 50
    assert torch.allclose(torch.tensor(first["weights"]), torch.tensor(alone["weights"]), rtol=0, atol=1e-5)
    assert torch.allclose(torch.tensor(first["losses"]), torch.tensor(alone["losses"]), rtol=0, atol=1e-5)
    assert alone["losses"][-1] < alone["losses"][0]


def torchrun(folder: Path, *more: str) -> list[str]:
    table = folder.parent / "table.csv"
    if not table.exists():
        rows = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)).tolist()
        table.write_text("a,b,c\n" + "\n".join(",".join(f"{v:.4f}" for v in row) for row in rows) + "\n")
    settings = ["--trace", "--family", "vae", "--samples", "9600", "--width", "16", "--set", "batch=32"]
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *more, "-m",
            "verossim", "fit", str(table), "-o", str(folder), *settings]


def test_a_rank_killed_under_torchrun_is_started_again_and_nothing_shows(tmp_path):
    from verossim import Model, store
    common = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(torchrun(tmp_path / "whole"), capture_output=True, text=True, env=common)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "killed"
    running = subprocess.Popen(torchrun(run, "--max-restarts", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=common)
    ranks = _ranks_that_learn(running, run)
    os.kill(ranks[-1], signal.SIGKILL)
    _, error = running.communicate(timeout=120)
    assert running.returncode == 0, error
    events = [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert "resumed" in events
    assert Model.load(run).card["history"]["samples"] == 9_600
    a, b = (store.load(place / "model").tensors for place in (tmp_path / "whole", run))
    assert all(torch.equal(a[name], b[name]) for name in a)


def _ranks_that_learn(running: subprocess.Popen, run: Path) -> list[int]:
    """The processes of a run's ranks, once it has saved and learns on."""
    import time
    until = time.monotonic() + 60
    while time.monotonic() < until and running.poll() is None:
        journal = run / "events.jsonl"
        if journal.exists() and '"saved"' in journal.read_text():
            return [int(pid) for pid in subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True,
                                                       text=True).stdout.split()]
        time.sleep(0.02)
    raise AssertionError(running.communicate(timeout=5))
