"""What the exams of families that learn by gradient find: nothing where learning goes well, and by name what goes wrong."""

import pytest
import torch
from sklearn.datasets import load_digits, load_wine

from verossim.config import build
from verossim.seeds import Noise
from verossim.shelves import FAMILIES
from verossim.spaces import Batch, Continuous
from verossim.training import InMemory, Journal, Settled, train

WINE = Continuous(shape=(13,), axes=("number",))
DIGITS = Continuous(shape=(1, 8, 8), axes=("channel", "height", "width"), levels=256)
SMALL = {"vae": {"width": 32, "latent": 4, "network": "mlp"}, "diffusion": {"width": 48, "depth": 2}}


def wine() -> torch.Tensor:
    x = torch.tensor(load_wine().data, dtype=torch.float32)
    return mixed((x - x.mean(dim=0)) / x.std(dim=0))


def digits() -> torch.Tensor:
    levels = (torch.tensor(load_digits().images, dtype=torch.float32)[:, None] * 255 / 16).round()
    return mixed((levels + 0.5) / 128 - 1)


def mixed(x: torch.Tensor) -> torch.Tensor:
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]


def batch(x: torch.Tensor) -> Batch:
    return Batch(x, None, torch.ones(len(x)), torch.arange(len(x)))


def learned(family: str, space: Continuous, x: torch.Tensor, held: torch.Tensor, steps: int, monkeypatch, every: int = 250,
            rate: float = 1e-3, change=lambda made: None, **settings) -> tuple[list, list]:
    """The signs of each exam, and the alarms, of a run."""
    kind = FAMILIES.load(family)
    monkeypatch.setattr(kind, "examined", every)
    torch.manual_seed(0)
    made = kind(build(kind.Config, SMALL[family] | settings), space)
    change(made)
    events, journal, size, data = [], Journal(), min(32, len(x)), InMemory(batch(x))
    journal.listen(events.append)
    g = torch.Generator().manual_seed(1)
    train(made, lambda _: iter(lambda: data.take(torch.randint(len(x), (size,), generator=g)), None),
          Settled(samples=steps * size, batch=size, rate=rate), data=data, held=InMemory(batch(held)), journal=journal)
    return ([event["signs"] for event in events if event["event"] == "health"],
            [event for event in events if event["event"] == "alarm"])


@pytest.mark.parametrize(("family", "space", "data"), [("vae", DIGITS, digits), ("vae", WINE, wine), ("diffusion", WINE, wine)])
def test_a_run_that_goes_well_gives_no_alarm(family, space, data, monkeypatch):
    x = data()[:1200]
    signs, alarms = learned(family, space, x[:-60], x[-60:], 800, monkeypatch, every=200)
    assert len(signs) == 4 and not alarms
    assert all(sign["gap"] < 0.5 for sign in signs) and all(sign.get("active", 1) > 0.3 for sign in signs)


@pytest.mark.parametrize("family", ["vae", "diffusion"])
def test_few_records_learned_by_heart_give_alarm(family, monkeypatch):
    x = wine()
    signs, alarms = learned(family, WINE, x[:16], x[16:80], 900, monkeypatch, every=150, rate=3e-3, width=128)
    assert {alarm["sign"] for alarm in alarms} == {"gap"}
    assert alarms[0]["value"] > 1 and alarms[0]["action"] is None
    assert "by heart" in alarms[0]["cause"] and signs[-1]["gap"] > signs[0]["gap"]


def test_latents_that_go_unused_give_alarm(monkeypatch):
    class Deaf(torch.nn.Module):
        """In place of the layer by which latents enter the decoder."""

        def forward(self, z):
            return torch.zeros(len(z), SMALL["vae"]["width"])

    def deafen(made) -> None:
        made.networks["ladder"].rungs[0].enter = Deaf()
    x = wine()
    signs, alarms = learned("vae", WINE, x[:-60], x[-60:], 1000, monkeypatch, every=200, rate=3e-3, change=deafen)
    assert signs[-1]["active"] == 0 and alarms[0]["sign"] == "active" and "posterior collapse" in alarms[0]["cause"]
    assert not any(alarm["sign"] == "gap" for alarm in alarms)


@pytest.mark.parametrize("family", ["vae", "diffusion"])
def test_an_exam_is_the_same_each_time_and_draws_nothing_from_the_global_generator(family):
    kind, x = FAMILIES.load(family), wine()
    torch.manual_seed(0)
    made = kind(build(kind.Config, SMALL[family]), WINE).eval()
    before = torch.get_rng_state()
    first, second = (made.examine(batch(x[:100]), batch(x[100:]), Noise(3, 78)).signs for _ in range(2))
    assert first == second and torch.equal(torch.get_rng_state(), before)
    assert "gap" not in made.examine(batch(x[:100]), None, Noise(3, 78)).signs
