"""The average along the path is the power profile that its docstring states."""

import pytest
import torch

from verossim.training.average import Average, exponent


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_exponent_is_that_of_the_paper(width, gamma):
    """Karras et al., section 3.1."""
    assert exponent(width) == pytest.approx(gamma, abs=0.005)
    s = (gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5
    assert s == pytest.approx(width, rel=1e-3)


@pytest.mark.parametrize("width", [0.05, 0.10, 0.25])
def test_the_average_of_a_path_is_its_mean_by_a_power_of_the_step(width):
    parameter, gamma = {"w": torch.zeros(3, dtype=torch.float64)}, exponent(width)
    average, weighted, weights = Average(parameter, width), 0.0, 0.0
    for n in range(1, 2001):
        parameter["w"].fill_(n)
        average.update(n)
        weighted, weights = weighted + n ** gamma * n, weights + n ** gamma
        if n >= 20 and (n < 100 or n % 16 == 0):  # late in a run every sixteenth step is taken in
            assert average.tensors["w"].tolist() == pytest.approx([weighted / weights] * 3, rel=0.02)
    for n in range(2001, 2016):
        average.update(n)
    assert float(average.tensors["w"][0]) < 2000


def test_no_width_keeps_the_last_weights():
    parameter = {"w": torch.zeros(3)}
    average = Average(parameter, 0.0)
    for n in range(1, 151):
        parameter["w"].fill_(n)
        average.update(n)
        assert average.tensors["w"].tolist() == [n] * 3
