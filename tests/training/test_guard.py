"""What the guard takes for a leap, and that it remembers."""

import json
import math
import random

import pytest

from verossim.training.guard import Guard


def usual(guard: Guard, turn: str = "all", scale: float = 1.0, seed: int = 0, steps: int = 100) -> Guard:
    """A guard that has seen losses and norms about a scale."""
    draw = random.Random(seed)
    for _ in range(steps):
        guard.verdict(draw.gauss(scale, 0.01 * scale), draw.gauss(scale, 0.01 * scale), turn)
    return guard


@pytest.mark.parametrize(("loss", "norm", "verdict"), [
    (2.0, 2.0, "leap"), (2.0, 1.0, None), (1.0, 2.0, None), (1.01, 1.01, None), (-2.0, -2.0, None),
    (math.nan, 1.0, "not finite"), (1.0, math.inf, "not finite")])
def test_a_leap_is_one_of_loss_and_gradient_together(loss, norm, verdict):
    assert usual(Guard()).verdict(loss, norm) == verdict


def test_each_turn_has_its_own_scale():
    guard = Guard()
    usual(guard, "small", 1.0)
    usual(guard, "large", 100.0)
    assert guard.verdict(2.0, 2.0, "small") == "leap"
    assert guard.verdict(2.0, 2.0, "large") is None
    assert guard.verdict(100.0, 100.0, "large") is None
    assert guard.verdict(200.0, 200.0, "large") == "leap"
    assert guard.verdict(200.0, 200.0, "new") is None


def test_what_is_usual_is_that_of_the_last_steps():
    guard = usual(usual(Guard()), scale=5.0)
    assert guard.verdict(5.0, 5.0) is None and guard.verdict(10.0, 10.0) == "leap"


def test_a_guard_goes_through_a_file_and_goes_on_as_if_it_had_not():
    guard = usual(usual(Guard(), "a"), "b", 3.0)
    guard.verdict(math.nan, 1.0, "a")
    for _ in range(3):
        guard.verdict(9.0, 9.0, "a")
    guard.retreat()
    usual(guard, "a", steps=60)
    guard.verdict(9.0, 9.0, "a")
    again = Guard.restore(json.loads(json.dumps(guard.plain(), allow_nan=False)))
    assert again == guard and again.plain() == guard.plain()
    assert (again.retreats, again.share) == (1, 0.5) and list(again.skipped)[-1]
    draw = random.Random(7)
    for _ in range(200):  # windows of the same lengths, looks at the median at the same steps
        loss, norm, turn = draw.lognormvariate(0, 1), draw.lognormvariate(0, 1), draw.choice("ab")
        assert again.verdict(loss, norm, turn) == guard.verdict(loss, norm, turn)
    assert again == guard and len(guard.skipped) == 100


def test_twenty_skips_of_a_hundred_steps_are_too_many_and_four_retreats():
    guard = usual(Guard())
    for _ in range(19):
        guard.verdict(math.nan, 1.0)
    assert not guard.lost
    guard.verdict(math.nan, 1.0)
    assert guard.lost
    assert [guard.retreat() for _ in range(4)] == [True, True, True, False]
    assert not guard.lost and guard.share == 1 / 16
    assert guard.verdict(50.0, 50.0) is None  # what is usual is learned anew
