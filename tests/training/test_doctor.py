"""The doctor: patient before there is an alarm, climbs its ladder rung by rung, the same in a run resumed or shared out."""

import os
import signal

import pytest
import torch
from patient import Patient, ill
from ranks import spawned
from slopes import numbers, settled, stream

from verossim.families import Sign
from verossim.training import Checkpoints, Engine, Journal, train
from verossim.training.doctor import GRACE, PATIENCE, WARM, Doctor

BATCH, EVERY = 32, Patient.examined
SLOWER = "the rate was quartered"
BACK = f"the weights went back to when all was well, and {SLOWER}"
FIRST = WARM // EVERY  # the first exam that counts


def learned(made: Patient, steps: int, folder=None, held=None, stop: int | None = None) -> list[dict]:
    """A run; its events. The process is asked to end in the middle of step number `stop`."""
    said, data, count = [], numbers(), iter(range(10**6))

    def poison(batch) -> bool:
        if stop is not None and made.training and next(count) == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return False
    made.poison = poison
    train(made, stream(data, BATCH), settled(samples=BATCH * steps), data=data, held=held, seed=5,
          journal=Journal(None, said.append), checkpoints=None if folder is None else Checkpoints(folder))
    return said


def alarms(said: list[dict]) -> list[tuple]:
    return [(event["samples"] // BATCH, event["sign"], event["action"]) for event in said if event["event"] == "alarm"]


def test_the_settings_that_the_tests_count_on():
    assert (WARM, PATIENCE, GRACE, EVERY) == (100, 3, 5, 10)


def test_there_is_no_alarm_before_it_is_warm_nor_before_it_was_out_of_bounds_in_a_row():
    assert alarms(learned(Patient({"heat": ill(1)}), 119)) == []
    assert alarms(learned(Patient({"heat": ill(1)}), 120)) == [(120, "heat", "pressed")]
    assert alarms(learned(Patient({"heat": lambda exam: 2.0 * (exam % 3 > 0)}), 300)) == []  # two in a row and then none
    assert alarms(learned(Patient({"heat": ill(15)}), 170)) == [(170, "heat", "pressed")]
    assert alarms(learned(Patient({"heat": lambda exam: float("nan")}), 120)) == [(120, "heat", "pressed")]


def test_the_ladder_is_climbed_in_order_with_quiet_in_between():
    made = Patient({"heat": ill(FIRST)})
    said = learned(made, 380)
    assert alarms(said) == [(120, "heat", "pressed"), (180, "heat", SLOWER), (240, "heat", BACK), (300, "heat", BACK),
                            (360, "heat", BACK)]  # the last rung again and again
    assert made.treated == ["penalty", "augmentation"]  # the second did nothing, and the next rung was taken at once


def test_each_sign_has_a_ladder_of_its_own():
    made = Patient({"heat": ill(FIRST, FIRST + 2), "pulse": ill(FIRST + 5, FIRST + 12)})
    assert alarms(learned(made, 300)) == [(120, "heat", "pressed"), (180, "pulse", BACK)]


def test_an_alarm_says_its_cause_with_the_numbers_behind_it():
    said = learned(Patient({"heat": ill(1), "pulse": lambda exam: 0.5}), 120)
    event, = (event for event in said if event["event"] == "alarm")
    told = {name: event[name] for name in ("sign", "cause", "value", "bounds", "exams", "action", "samples")}
    assert told == {"sign": "heat", "cause": "it has a fever", "value": 2.0, "bounds": "at least -1 and at most 1", "exams": 3,
                    "action": "pressed", "samples": 120 * BATCH}
    assert event["signs"]["pulse"] == 0.5 and event["signs"]["movement"] > 0
    health = [event for event in said if event["event"] == "health"]
    assert [event["samples"] for event in health] == [BATCH * EVERY * n for n in range(1, 13)]
    assert "movement" not in health[0]["signs"] and all(event["signs"]["movement"] > 0 for event in health[1:])


@pytest.mark.parametrize(("low", "high", "told"), [(0.5, None, "at least 0.5"), (None, 2.0, "at most 2")])
def test_bounds_are_told_as_they_are(low, high, told):
    class One(Patient):
        signs = (Sign(name="heat", low=low, high=high, cause="cold or hot"),)
    event, = (event for event in learned(One({"heat": lambda exam: 0.0 if low else 3.0}), 120) if event["event"] == "alarm")
    assert event["bounds"] == told and event["action"] is None


def test_a_rollback_brings_back_the_last_healthy_weights_bit_for_bit(tmp_path):
    """The last healthy exam is that of step 190; the alarm is at 220."""
    made, after = Patient({"pulse": ill(20)}), []
    loss = made.loss

    def noted(batch, turn):
        if len(made.weights) == 22 and not after:  # the first step after the exam of step 220
            after.append(torch.cat([p.detach().flatten() for p in made.parameters()]))
        return loss(batch, turn)
    made.loss = noted
    assert alarms(learned(made, 225, tmp_path)) == [(220, "pulse", BACK)]
    assert torch.equal(after[0], made.weights[18]) and not torch.equal(after[0], made.weights[21])
    held = Checkpoints(tmp_path).newest()
    assert held.plain["guard"]["share"] == 0.25
    forgotten = [value for name, value in held.tensors.items() if name.startswith("optimizer/") and name.endswith("/step")]
    assert forgotten and all(float(value) == 5 for value in forgotten)  # moments began anew


@pytest.mark.parametrize("stops", [(125,), (205, 215), (221,), (182, 231)])
def test_a_run_resumed_is_treated_as_one_that_was_not_stopped(tmp_path, stops):
    script = {"heat": ill(FIRST, FIRST + 2), "pulse": ill(20, 23)}
    whole = learned(Patient(script), 300, tmp_path / "whole")
    assert [alarm[:2] for alarm in alarms(whole)] == [(120, "heat"), (220, "pulse")] and alarms(whole)[1][2] == BACK
    said, done = [], 0
    for stop in (*stops, None):
        said += learned(Patient(script), 300, tmp_path / "cut", stop=None if stop is None else stop - done)
        done = (stop or 0) + 1
    a, b = (Checkpoints(tmp_path / name).newest() for name in ("whole", "cut"))
    assert a.samples == b.samples == 300 * BATCH
    assert a.tensors.keys() == b.tensors.keys() and any(name.startswith("doctor/healthy/") for name in a.tensors)
    for name, tensor in a.tensors.items():
        assert torch.equal(tensor, b.tensors[name]), name
    assert all(a.plain[name] == b.plain[name] for name in ("guard", "doctor", "steps"))
    assert alarms(said) == alarms(whole)
    health = [[event["signs"] for event in events if event["event"] == "health"] for events in (whole, said)]
    assert health[0] == health[1]


def test_records_held_out_are_looked_at_beside_those_learned_from_where_there_are_enough():
    made = Patient({})
    learned(made, 10, held=numbers(20))
    learned(made, 10, held=numbers(7))
    learned(made, 10)
    assert made.probes == [(256, 20, 20), (256, None, 256), (256, None, 256)]


def test_a_family_without_exams_is_left_alone():
    class Sound(Patient):
        examined = 0
    made = Sound({"heat": ill(1)})
    assert [event for event in learned(made, 120) if event["event"] in ("health", "alarm")] == [] and made.probes == []
    assert not Doctor(made, numbers(), None, 0, Engine()).due(50)


WORKER = """
import json, sys
import torch
from patient import Patient, ill
from slopes import numbers, settled, stream
from verossim.training import Engine, Journal, train
torch.set_num_threads(1)
engine, data, said = Engine.start(), numbers(), []
made = Patient({"heat": ill(10, 12), "pulse": ill(20)})
train(made, stream(data, 32, engine.rank, engine.ranks), settled(samples=32 * 250), data=data, seed=5, engine=engine,
      journal=Journal(None, said.append))
alarms = [[event["samples"] // 32, event["sign"], event["action"]] for event in said if event["event"] == "alarm"]
weights = torch.cat([p.detach().flatten() for p in made.parameters()]).tolist()
if engine.ranks > 1:
    torch.distributed.barrier()  # none leaves while another still speaks to it
engine.close()
sys.stdout.write(json.dumps({"alarms": alarms, "weights": weights, "at": [w.tolist() for w in made.weights[18:23]]}))
"""


def test_two_ranks_agree_and_do_as_one():
    one, two = spawned(WORKER)
    assert one == two and len(one["alarms"]) == 2
    alone, = spawned(WORKER, ranks=1)
    assert alone["alarms"] == one["alarms"]
    assert torch.allclose(torch.tensor(alone["weights"]), torch.tensor(one["weights"]), atol=1e-5)
    assert torch.allclose(torch.tensor(alone["at"]), torch.tensor(one["at"]), atol=1e-5)
