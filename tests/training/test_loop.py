"""The loop: it loses nothing, repeats itself bit for bit, and guards the weights."""

import json
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from slopes import Denoiser, numbers, settled, stream

from verossim.errors import CannotWrite, CorruptStore, Diverged
from verossim.families import Turn
from verossim.sealed import to_json, write_sealed
from verossim.training import Checkpoints, Journal, locked, loop, train
from verossim.training.checkpoint import Checkpoint

HERE = Path(__file__).parent


def family(width: int = 16) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(Denoiser.Config(width=width))


def run(folder=None, made=None, **settings):
    """A whole run; returns the family and how it went."""
    made, config, data = made or family(), settled(**settings), numbers()
    checkpoints = None if folder is None else Checkpoints(folder)
    return made, train(made, stream(data, config.batch), config, data=data, seed=5, checkpoints=checkpoints)


def held(folder) -> dict[str, torch.Tensor]:
    return Checkpoints(folder).newest().tensors


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_after(made: Denoiser, steps: int, number=signal.SIGTERM) -> Denoiser:
    """The family, which sends its own process a signal in the middle of a step."""
    seen = iter(range(steps * 10))

    def poison(batch):
        if next(seen) == steps:
            os.kill(os.getpid(), number)
        return False
    made.poison = poison
    return made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("settings", [{}, {"accumulate": 4}, {"precision": "bf16"}, {"accumulate": 4, "precision": "bf16"},
                                      {"optimizer": "muon"}], ids=str)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, settings, number):
    run(tmp_path / "whole", **settings)
    _, course = run(tmp_path / "cut", stop_after(family(), 37, number), **settings)
    assert course.interrupted == number and course.samples < 3200
    _, course = run(tmp_path / "cut", **settings)
    assert course.interrupted is None and course.samples == 3200
    assert same(held(tmp_path / "whole"), held(tmp_path / "cut"))
    assert {name.partition("/")[0] for name in held(tmp_path / "cut")} == {"raw", "average", "optimizer", "buffer"}


@pytest.mark.parametrize("stop", [None, 20])
def test_what_is_kept_is_kept_before_anything_is_shown_and_a_run_that_must_stop_shows_nothing(tmp_path, stop):
    """Who asks a run to stop may not wait for a preview."""
    order, data = [], numbers()

    class Told(Checkpoints):
        def save(self, checkpoint):
            order.append(("save", checkpoint.samples))
            Checkpoints.save(self, checkpoint)
    made = family() if stop is None else stop_after(family(), stop)
    course = train(made, stream(data, 32), settled(samples=1600), data=data, checkpoints=Told(tmp_path),
                   show=lambda samples: order.append(("show", samples)), publish=lambda state: order.append(("publish", None)))
    assert course.samples == (1600 if stop is None else 21 * 32)
    last = [("save", course.samples), ("publish", None), *([("show", 1600)] if stop is None else [])]
    assert order == [("save", 0), ("publish", None), *last]


def test_the_same_seed_gives_the_same_bits_and_leaves_the_average_behind(tmp_path):
    first, _ = run(tmp_path / "a")
    second, _ = run()
    assert same(first.state_dict(), second.state_dict())
    tensors = held(tmp_path / "a")
    for name, value in first.networks.state_dict().items():
        assert torch.equal(value, tensors[f"average/{name}"])
        assert not torch.equal(value, tensors[f"raw/{name}"])


def test_it_learns(monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)  # every step is reported
    made, course = run(samples=32_000)
    assert course.samples == 32_000
    x = numbers().whole.x - made.middle
    assert float((made.networks["net"](x) - x).detach().square().mean()) < 0.1
    assert course.curve[-1][1] < 0.1


def test_rounds_do_not_change_what_is_learned():
    """Noise belongs to the record, so a step cut into pieces differs in rounding alone."""
    one, _ = run(samples=1600)
    many, _ = run(samples=1600, accumulate=7)
    pairs = list(zip(one.parameters(), many.parameters(), strict=True))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    assert not all(torch.equal(a, b) for a, b in pairs)  # the step was cut: sums in another order


def test_short_memory_halves_the_rounds_and_keeps_the_result():
    class Narrow(Denoiser):
        """Has memory for eight records at a time."""

        def loss(self, batch, turn):
            losses = Denoiser.loss(self, batch, turn)  # draws before memory runs out
            if len(batch.x) > 8:
                raise torch.OutOfMemoryError("no room")
            return losses
    torch.manual_seed(0)
    said = []
    data, config = numbers(), settled(samples=1600)
    made = Narrow(Denoiser.Config())
    train(made, stream(data, 32), config, data=data, seed=5, journal=Journal(None, said.append))
    whole, _ = run(samples=1600)
    assert [e["code"] for e in said if e["event"] == "warning"] == ["MEMORY", "MEMORY"]  # 2 rounds, then 4
    for a, b in zip(made.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_steps_that_are_not_finite_leave_no_trace(tmp_path):
    """At random steps the loss becomes NaN: each is skipped, told, and no checkpoint holds it."""
    steps = set(random.Random(1).sample(range(3000), 100))
    made, seen, said = family(), iter(range(10**6)), []
    made.poison = lambda batch: next(seen) in steps
    data, config = numbers(), settled(samples=32 * 3000)
    course = train(made, stream(data, 32), config, data=data, seed=5, checkpoints=Checkpoints(tmp_path),
                   journal=Journal(None, said.append))
    bad = [e for e in said if e["event"] == "skipped" and e["why"] == "not finite"]
    assert len(bad) == 100 and course.skipped >= 100
    assert all(e["records"] == [n % 500 for n in range(e["samples"], e["samples"] + 32)] for e in bad)
    assert all(value.isfinite().all() for value in held(tmp_path).values())
    assert all(p.isfinite().all() for p in made.parameters())


def test_a_gradient_that_is_not_finite_is_caught_where_the_loss_is_finite():
    class Rooted(Denoiser):
        """The square root's slope at 0 is infinite."""

        def loss(self, batch, turn):
            losses = Denoiser.loss(self, batch, turn)
            zero = self.networks["net"][0].weight.sum() * 0
            return type(losses)(losses.total + zero.sqrt(), losses.parts)
    made = Rooted(Denoiser.Config())
    before = [p.detach().clone() for p in made.parameters()]
    data = numbers()
    with pytest.raises(Diverged) as error:
        train(made, stream(data, 32), settled(), data=data)
    assert error.value.code == "DIVERGED"
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))


def test_fp16_that_finds_no_scale_ends_as_diverged():
    class Endless(Denoiser):
        """Its gradient is never finite."""

        def loss(self, batch, turn):
            losses = Denoiser.loss(self, batch, turn)
            return type(losses)(losses.total + (self.networks["net"][0].weight.sum() * 0).sqrt(), losses.parts)
    data = numbers()
    with pytest.raises(Diverged):
        train(Endless(Denoiser.Config()), stream(data, 32), settled(samples=32 * 200, precision="fp16"), data=data)


def test_a_measure_that_is_not_finite_stops_nothing(tmp_path):
    class Silent(Denoiser):
        def loss(self, batch, turn):
            losses = Denoiser.loss(self, batch, turn)
            return type(losses)(losses.total, {"nats": losses.total.detach() * float("nan")})
    data, said = numbers(), []
    course = train(Silent(Denoiser.Config()), stream(data, 32), settled(samples=640), data=data,
                   checkpoints=Checkpoints(tmp_path), journal=Journal(None, said.append))
    assert course.samples == 640 and course.curve[-1][2] is None and course.curve[-1][1] > 0
    assert [event["bits"] for event in said if event["event"] == "progress"] == [None]


def test_records_of_no_weight_teach_nothing_and_are_no_fault():
    made, data = family(), numbers()
    data.whole.units.zero_()
    course = train(made, stream(data, 32), settled(samples=3200, decay=0.0), data=data)
    assert course.skipped == 0 and course.retreats == 0
    for a, b in zip(made.parameters(), family().parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    """Something broke them between two steps: the run goes back to the checkpoint before, and learns on."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1.0)
    made, data, said, seen = family(), numbers(), [], iter(range(10**6))

    def broken(batch) -> bool:
        if next(seen) == 30:
            made.networks["net"][0].bias.data[0] = torch.inf
        return False
    made.poison = broken
    course = train(made, stream(data, 32), settled(), data=data, checkpoints=Checkpoints(tmp_path),
                   journal=Journal(None, said.append))
    assert course.samples == 3200 and course.retreats >= 1
    assert [event["event"] for event in said].count("retreat") == course.retreats
    assert all(value.isfinite().all() for value in [*held(tmp_path).values(), *made.parameters()])


def test_the_curve_of_a_long_run_is_thinned(monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "CURVE", 20)
    _, course = run()
    samples = [point[0] for point in course.curve]
    assert 10 <= len(samples) <= 21 and samples[-1] == 3200 and samples == sorted(samples)


def test_turns_learn_by_themselves_and_are_reported_by_name():
    class Two(Denoiser):
        turns = (Turn("first", ("net",)), Turn("second", ("net",)))
    data, said = numbers(), []
    train(Two(Denoiser.Config()), stream(data, 32), settled(samples=640), data=data, journal=Journal(None, said.append))
    progress = next(event for event in said if event["event"] == "progress")
    assert progress["parts"].keys() == {"first nats", "second nats"}
    assert progress["loss"] == pytest.approx(sum(progress["parts"].values()), rel=1e-5)


def test_after_too_many_bad_steps_weights_go_back_and_the_rate_is_halved(tmp_path):
    made, said, data, seen, after = family(), [], numbers(), iter(range(10**6)), []

    def bad(batch) -> bool:
        step = next(seen)
        if step in (50, 70):
            after.append([p.detach().clone() for p in made.parameters()])
        return 50 <= step < 70
    made.poison = bad
    course = train(made, stream(data, 32), settled(), data=data, seed=5, journal=Journal(None, said.append))
    retreat = next(e for e in said if e["event"] == "retreat")
    assert course.retreats == 1 and retreat["rate"] == 0.5e-3 and retreat["to"] == "average" and retreat["samples"] == 70 * 32
    run(tmp_path, stop_after(family(), 49))  # its weights after 50 steps, and their average, are those of the run that failed
    average = {name: value for name, value in held(tmp_path).items() if name.startswith("average/")}
    raw = {name: value for name, value in held(tmp_path).items() if name.startswith("raw/")}
    for before, now, name in zip(*after, [n for n, _ in made.networks.named_parameters()], strict=True):
        assert torch.equal(before, raw[f"raw/{name}"]) and torch.equal(now, average[f"average/{name}"])


def test_a_run_that_retreats_is_the_same_wherever_it_was_stopped(tmp_path):
    def learned(folder, stop=None):
        made, data, config = family(), numbers(), settled()

        def bad(batch) -> bool:
            first = int(batch.index[0])
            return first in BAD and made.training
        made.poison = bad
        if stop is not None:
            inner, count = made.poison, iter(range(10**6))

            def stopping(batch) -> bool:
                if next(count) == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
                return inner(batch)
            made.poison = stopping
        return train(made, stream(data, 32), config, data=data, seed=5, checkpoints=Checkpoints(folder))
    BAD = {32 * step % 500 for step in range(0, 60, 2)}
    whole = learned(tmp_path / "whole")
    assert whole.retreats >= 1
    learned(tmp_path / "cut", stop=30)
    assert learned(tmp_path / "cut").retreats == whole.retreats
    assert same(held(tmp_path / "whole"), held(tmp_path / "cut"))


def test_it_ends_as_diverged_where_nothing_helps(tmp_path):
    run(tmp_path, stop_after(family(), 10))
    made = family()
    made.poison = lambda batch: True
    with pytest.raises(Diverged):
        run(tmp_path, made, samples=32_000)
    assert all(value.isfinite().all() for value in held(tmp_path).values())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    run(tmp_path, stop_after(family(), 20))
    run(tmp_path, stop_after(family(), 20))
    newest, before = sorted(tmp_path.glob("samples-*"), reverse=True)
    for name in ("tensors.safetensors", "state.json", "manifest.json"):
        content = (newest / name).read_bytes()
        at = len(content) // 2
        (newest / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])
        checkpoints = Checkpoints(tmp_path)
        assert f"{checkpoints.newest().samples:015d}" in before.name
        assert checkpoints.damaged[0].code == "CKPT_CORRUPT"
        (newest / name).write_bytes(content)
    for place in (newest, before):
        (place / "state.json").unlink()
    with pytest.raises(CorruptStore) as error:
        Checkpoints(tmp_path).newest()
    assert error.value.code == "CKPT_MISSING"


def test_a_damaged_checkpoint_takes_the_place_of_no_whole_one(tmp_path):
    def at(samples: int) -> Checkpoint:
        return Checkpoint(samples, {}, {"raw/w": torch.full((5,), float(samples))})

    def there() -> list[int]:
        return sorted(int(place.name.removeprefix("samples-")) for place in tmp_path.iterdir())
    checkpoints = Checkpoints(tmp_path)
    for samples in (100, 200):
        checkpoints.save(at(samples))
    file = tmp_path / f"samples-{200:015d}" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    assert checkpoints.newest().samples == 100
    checkpoints.save(at(150))
    assert there() == [100, 150]
    checkpoints.save(at(180))
    assert there() == [150, 180] and checkpoints.newest().samples == 180 and not checkpoints.damaged


@pytest.mark.parametrize(("number", "way"), [(None, "--restart"), (1, "--restart"), (99, "pip install")])
def test_a_checkpoint_of_another_version_is_told_and_no_damage(tmp_path, number, way):
    """The format before has no number in it, and knows neither watches nor a doctor."""
    run(tmp_path, stop_after(family(), 20))
    newest = max(tmp_path.glob("samples-*"))
    state = json.loads((newest / "state.json").read_bytes())
    assert state.pop("format") == 2
    state |= {"guard": {"losses": [], "norms": [], "skipped": []}} | ({} if number is None else {"format": number})
    del state["doctor"]
    write_sealed(newest, {"state.json": to_json(state), "tensors.safetensors": (newest / "tensors.safetensors").read_bytes()})
    with pytest.raises(CorruptStore) as error:
        run(tmp_path)
    assert error.value.code == "CKPT_VERSION" and way in error.value.hint and newest.name in error.value.message


def test_a_second_trainer_is_refused(tmp_path):
    with locked(tmp_path / "run"):
        with pytest.raises(CannotWrite) as error, locked(tmp_path / "run"):
            pass
        assert error.value.code == "RUN_LOCKED"
    with locked(tmp_path / "run"):
        pass
