"""What learning will cost is known, and refused where it cannot be, before the first step."""

import shutil
import statistics
import time
import types
from dataclasses import dataclass, replace

import pytest
import torch
from slopes import SPACE, Denoiser, numbers, settled, stream
from tiny import batch_of

from verossim.config import knob
from verossim.errors import BadConfig
from verossim.families.autoregressive import Autoregressive
from verossim.families.vae import VAE
from verossim.spaces import Batch, Continuous, Discrete
from verossim.training import Checkpoints, Engine, InMemory, Training, forecast, seconds_of, settle, train

CLOCK = {"now": 0.0}


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The time that the forecast measures by moves on in the slow family alone."""
    monkeypatch.setattr(forecast, "time", types.SimpleNamespace(perf_counter=lambda: CLOCK["now"]))


class Slow(Denoiser):
    """Each record takes a thousandth of a second of a clock of its own for every 16 numbers of width."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int | str = knob("auto", "numbers inside", low=16, high=128, choices=("auto",))

    def loss(self, batch, turn):
        CLOCK["now"] += len(batch.x) * self.config.width / 16_000
        return Denoiser.loss(self, batch, turn)


def planned(**settings):
    """Config, settled training and forecast for the slow family."""
    return settle(Slow, Slow.Config(), Training(**settings), numbers(), Engine())


def test_the_widest_network_that_sees_enough_records_is_taken():
    narrow, _, _ = planned(budget="58s")
    wide, training, cost = planned(budget="250s")
    assert (narrow.width, wide.width) == (16, 64)  # 50,000 records at 1 ms each; at 4 ms
    assert 225 < cost.seconds < 250 and cost.seconds == pytest.approx(training.samples * 0.004)
    assert training.samples % training.batch == 0


def test_the_rate_follows_the_width_that_the_family_settles():
    class Open(Denoiser):
        @dataclass(frozen=True, kw_only=True)
        class Config:
            width: int | None = knob(None, "numbers inside; where nothing is said 256", low=16, high=1024)

        def __init__(self, config, space=SPACE, condition=None):
            Denoiser.__init__(self, replace(config, width=config.width or 256), space, condition)

    for config, share in ((Open.Config(), 0.5), (Open.Config(width=1024), 0.25), (Open.Config(width=32), 1.0)):
        kept, training, _ = settle(Open, config, Training(samples=64, batch=32), numbers(), Engine())
        assert kept == config and training.rate == pytest.approx(share * Open.peak)


def test_a_width_that_was_given_is_kept():
    began = CLOCK["now"] - 5.0  # five seconds went into reading the data, and as much as the probes take
    config, training, _ = settle(Slow, Slow.Config(width=32), Training(budget="60s"), numbers(), Engine(), began=began)
    left = 60 - (CLOCK["now"] - began)
    assert config.width == 32 and training.samples == pytest.approx(0.92 * left / 0.002, abs=32) and left < 55


@pytest.mark.parametrize(("tokens", "batch"), [(64, 32), (8, 256)])
def test_a_step_of_short_texts_has_more_of_them(tokens, batch):
    space, x = Discrete(shape=(65,), vocabulary=6, pad=5, start=4), torch.randint(3, (4000, 65))
    x[:, 0], x[:, tokens:] = ~4, 5
    data = InMemory(Batch(x, None, torch.ones(4000), torch.arange(4000)))
    config = Autoregressive.Config(width=16, blocks=1)
    _, training, _ = settle(lambda config: Autoregressive(config, space), config, Training(samples=4000), data, Engine(),
                            kind=Autoregressive)
    assert training.batch == batch


def test_time_is_measured_with_as_many_records_as_a_step_has():
    class Late(Slow):
        def loss(self, batch, turn):
            CLOCK["now"] += 0.016  # a step, beside what its records take
            return super().loss(batch, turn)

    batches = set()
    for asked in ({"budget": "70s"}, {"budget": "1000s"}, {"samples": 2000}, {"budget": "70s", "batch": 8}, {}):
        _, training, cost = settle(Late, Slow.Config(width=16), Training(**asked), numbers(1000), Engine())
        assert cost.seconds / training.samples == pytest.approx(0.001 + 0.016 / training.batch, rel=0.01), asked
        batches.add(training.batch)
    assert len(batches) >= 3


@pytest.mark.parametrize(("native", "gain", "budget", "precision"), [
    (True, 2.0, "60s", "bf16"), (True, 1.1, "60s", "fp32"), (False, 2.0, "60s", "fp32"), (True, 2.0, "", "fp32")])
def test_bf16_is_taken_on_a_cpu_where_it_was_measured_to_pay_and_time_is_short(monkeypatch, native, gain, budget, precision):
    class Halved(Slow):
        def loss(self, batch, turn):
            before = CLOCK["now"]
            found = super().loss(batch, turn)
            CLOCK["now"] = before + (CLOCK["now"] - before) / (gain if torch.is_autocast_enabled("cpu") else 1)
            return found
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    _, training, cost = settle(Halved, Slow.Config(width=16), Training(samples=2000, budget=budget), numbers(), Engine())
    assert training.precision == precision
    assert cost.seconds == pytest.approx(2.0 / (gain if precision == "bf16" else 1))
    given = Training(samples=2000, budget=budget, precision="fp32")
    assert settle(Halved, Slow.Config(width=16), given, numbers(), Engine())[1].precision == "fp32"


def test_the_numbers_forecast_are_those_of_the_run(tmp_path):
    config, training, cost = settle(Slow, Slow.Config(width=16), Training(samples=2000, batch=50), numbers(), Engine())
    began = CLOCK["now"]
    made = Slow(config)
    course = train(made, stream(numbers(), 50), training, data=numbers(), checkpoints=Checkpoints(tmp_path))
    assert course.samples == 2000 and CLOCK["now"] - began == pytest.approx(cost.seconds)
    assert cost.parameters == sum(p.numel() for p in made.parameters())
    written = next(tmp_path.glob("samples-*/tensors.safetensors")).stat().st_size
    assert cost.state_bytes == pytest.approx(written, rel=0.5)


@pytest.mark.parametrize(("dims", "width", "batch", "steps", "budget"), [(784, 512, 8, 80, ""), (6, 32, 32, 200, "60s")])
def test_the_time_forecast_is_that_of_the_run_by_the_processors_clock(monkeypatch, dims, width, batch, steps, budget):
    """A step is more than its network: optimizers, norms and batches take their time."""
    monkeypatch.setattr(forecast, "time", types.SimpleNamespace(perf_counter=time.process_time))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another take the processor's time
    space, data = Continuous(shape=(dims,), axes=("number",)), InMemory(batch_of(torch.randn(500, dims)))

    def build(config):
        torch.manual_seed(0)
        return VAE(config, space, None)
    ratios, asked = [], Training(samples=batch * steps, batch=batch, budget=budget)
    for _ in range(3):
        config, training, cost = settle(build, VAE.Config(width=width), asked, data, Engine())
        made, began = build(config), time.process_time()
        train(made, stream(data, batch), training, data=data)
        ratios.append((time.process_time() - began) / cost.seconds)
    torch.set_num_threads(threads)
    assert 0.5 < statistics.median(ratios) < 1.8, ratios


def test_a_network_that_no_memory_holds_is_refused_unmeasured():
    class Unmeasured(Denoiser):
        def loss(self, batch, turn):
            raise AssertionError("it was measured")
    with pytest.raises(BadConfig) as error:
        settle(Unmeasured, Denoiser.Config(width=64), Training(samples=1000), numbers(), Engine(), limit=4 * 6 * 580 - 1)
    assert error.value.code == "PLAN_MEMORY"


def test_what_cannot_finish_is_refused_by_the_name_of_the_setting():
    with pytest.raises(BadConfig) as error:
        planned(budget="5s", samples=1_000_000)
    assert error.value.code == "PLAN_BUDGET" and "'samples' is 1,000,000" in error.value.message
    number = int("".join(c for c in error.value.hint if c.isdigit()))
    assert planned(budget="5s", samples=number)[2].seconds < 5.3
    with pytest.raises(BadConfig) as error:
        planned(budget="1s")
    assert error.value.code == "PLAN_BUDGET" and "'budget' is 1s" in error.value.message


def test_memory_is_kept_by_cutting_steps_and_refused_where_that_does_not_help():
    config, training = Denoiser.Config(width=64), Training(samples=1000, batch=256)
    free = settle(Denoiser, config, training, numbers(), Engine())
    fixed = 4 * 6 * free[2].parameters
    tight = settle(Denoiser, config, training, numbers(), Engine(), limit=fixed + (free[2].memory - fixed) // 3)
    assert (free[1].accumulate, tight[1].accumulate) == (1, 4)
    assert tight[2].memory < free[2].memory and tight[1].batch == free[1].batch
    with pytest.raises(BadConfig) as error:
        settle(Denoiser, config, training, numbers(), Engine(), limit=fixed)
    assert error.value.code == "PLAN_MEMORY" and "'width'" in error.value.hint


def test_a_disk_that_is_too_small_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(BadConfig) as error:
        settle(Denoiser, Denoiser.Config(), Training(samples=1000), numbers(), Engine(), tmp_path / "run")
    assert error.value.code == "PLAN_DISK"


def failing(error):
    class Uncompiled(Slow):
        def loss(self, batch, turn):
            if any(network._compiled_call_impl is not None for network in self.networks.values()):
                raise error
            return Slow.loss(self, batch, turn)
    return Uncompiled


@pytest.mark.parametrize("error", [RuntimeError("no kernel found"), AssertionError("expected stride 1")])
def test_what_cannot_be_compiled_is_refused_where_it_is_asked_for_and_left_alone_otherwise(error):
    def compiled(how):
        asked = Training(compile=how, samples=10**6)
        return settle(failing(error), Slow.Config(width=16), asked, numbers(), Engine())[1].compiled
    with pytest.raises(BadConfig, match=str(error)) as refused:
        compiled("yes")
    assert refused.value.code == "SETTING_RANGE" and "'compile'" in refused.value.message
    assert not compiled("auto") and not compiled("no")


def test_a_loss_that_differentiates_twice_is_not_compiled():
    class Twice(Slow):
        twice = True
    with pytest.raises(BadConfig, match="differentiates twice"):
        settle(Twice, Slow.Config(width=16), Training(compile="yes"), numbers(), Engine())


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("2", 2), ("1d", 86400),
                                               (" 3 min", 180)])
def test_times_are_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["soon", "-3m", "0s", "3 x", "nan"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(BadConfig) as error:
        seconds_of(text)
    assert repr(text) in error.value.message


def test_settled_settings_are_those_given():
    training = settled(rate=0.25, optimizer="muon")
    given = Training(samples=training.samples, batch=32, rate=0.25, optimizer="muon", average=0.1, clip=0.0)
    _, made, _ = settle(Denoiser, Denoiser.Config(), given, numbers(), Engine())
    assert made == replace(training, average=0.1, clip=0.0)
