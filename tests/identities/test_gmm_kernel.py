"""The fast sums of the E-step are the reference's: in every form, in both types, and where a component is thin or far away."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from verossim.families.gmm import compiled, forms, kernel, reference
from verossim.families.gmm.reference import Components, Sums

F32, F64 = torch.float32, torch.float64
NAMES = ("count", "first", "second", "categories", "log_likelihood")


def mixture(B: int, D: int, K: int, full: bool = True, S: int = 0, offset: float = 0.0, seed: int = 0):
    """Records (B, D) float32, one-hot entries (B, S) or None, and the mixture they are drawn from."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=F64)
    L = (0.5 / math.sqrt(max(D, 1)) if full else 0.0) * normal(K, D, D) + torch.eye(D, dtype=F64)
    L = torch.linalg.cholesky(L @ L.mT)
    R = torch.linalg.inv(L).mT.contiguous()
    means, which = 3 * normal(K, D) + offset, torch.randint(K, (B,), generator=g)
    numbers = means[which] + (L[which] @ normal(B, D, 1))[:, :, 0]
    onehots = torch.nn.functional.one_hot(torch.randint(S, (B,), generator=g), S).float() if S else None
    logits = normal(K, S).log_softmax(dim=1)
    weights = torch.rand(K, generator=g, dtype=F64) + 0.1
    roots = R if full else R.diagonal(dim1=1, dim2=2).contiguous()
    return numbers.float(), onehots, Components((weights / weights.sum()).log(), means, roots, logits, means.mean(dim=0) + 0.3)


def apart(found: Sums, true: Sums) -> float:
    """The largest difference of a sum, relative to the largest of its kind."""
    pairs = [(getattr(found, name), getattr(true, name)) for name in NAMES]
    assert all(a.shape == b.shape and a.dtype == F64 for a, b in pairs)
    return max((float((a - b).abs().max() / b.abs().max()) for a, b in pairs if b.numel()), default=0.0)


def steps(x: torch.Tensor, components: Components, updates: int, sums=kernel.sums) -> float:
    """EM by maximum likelihood with nothing added to the covariances; returns the mean log-likelihood after it."""
    for _ in range(updates):
        s = sums(x, None, None, components)
        m = s.first / s.count[:, None]
        covariances = s.second / s.count[:, None, None] - m[:, :, None] * m[:, None, :]
        roots = torch.linalg.inv(torch.linalg.cholesky(covariances)).mT.contiguous()
        components = replace(components, log_weights=(s.count / s.count.sum()).log(), means=m + components.shift, roots=roots)
    return float(reference.log_density(x, None, components).mean())


@pytest.mark.parametrize("quadratic", [True, False], ids=["quadratic", "whitened"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize(("D", "K", "full", "S"), [(1, 1, True, 0), (3, 5, True, 4), (17, 3, True, 0), (40, 4, True, 2),
                                                   (5, 6, False, 3), (1, 2, False, 0), (0, 3, True, 5), (0, 2, False, 2)])
def test_every_form_gives_the_sums_of_the_reference(monkeypatch, quadratic, dtype, D, K, full, S):
    numbers, onehots, components = mixture(700, D, K, full, S, offset=1e3)
    units = torch.rand(700, generator=torch.Generator().manual_seed(1), dtype=F64) * 3
    monkeypatch.setattr(forms, "CHUNK_ROWS", (1, 300))  # three chunks, the last one short
    monkeypatch.setattr(kernel, "SLAB_ROWS", 400)
    monkeypatch.setattr(kernel._Way, "best", staticmethod(lambda *a, **k: kernel._Way(quadratic, dtype, 700)))
    near = 3e-6 if dtype == F32 else 1e-12
    for weights in (None, units):
        given = numbers, onehots, weights, components
        assert apart(kernel.sums(*given), reference.sums(*given)) < near
    joint = reference.log_joint(numbers, onehots, components)
    likely = joint > joint.amax(dim=1, keepdim=True) - 20
    assert ((kernel.log_joint(numbers, onehots, components) - joint).abs()[likely] < 100 * near).all()
    density = kernel.log_density(numbers, onehots, components)
    assert density.dtype == F64
    assert torch.allclose(density, joint.logsumexp(dim=1), rtol=0, atol=100 * near)


@pytest.fixture
def forced(monkeypatch):
    """Has the compiled pass do everything, by the form that is asked for, in several slabs and several blocks each."""
    def force(quadratic: bool, dtype: torch.dtype, B: int) -> None:
        def way(numbers, components, precision, passes):
            return kernel._Way(quadratic, F64 if precision == "float64" else dtype, B)
        monkeypatch.setattr(kernel._Way, "best", staticmethod(way))
        monkeypatch.setattr(kernel, "COMPILED_NUMBERS", 1)
        monkeypatch.setattr(compiled, "SLAB", 1 << 12)
    return force


@pytest.mark.parametrize(("D", "K", "given", "offset"), [(1, 1, F32, 0.0), (3, 4, F32, 0.0), (9, 70, F32, 0.0),
                                                         (3, 4, F64, 1e3)])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("quadratic", [True, False])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_the_compiled_pass_gives_the_sums_of_the_reference_on_any_number_of_threads(monkeypatch, forced, dtype, quadratic, full,
                                                                                    D, K, given, offset):
    B = 10_000
    numbers, _, components = mixture(B, D, K, full, offset=offset)
    numbers = numbers.to(given)
    units = torch.rand(B, generator=torch.Generator().manual_seed(1), dtype=F64) * (torch.arange(B) % 5 > 0)
    forced(quadratic, dtype, B)
    rounded = 6e-8 * (4 + kernel._growth(components)[0 if quadratic else 1])  # four roundings, and what the form makes of them
    near = min(3e-6, rounded) if dtype == F32 else 1e-11
    nats = max(20 * near, 5 * rounded) if dtype == F32 else 20 * near  # deviations that no normal error of 10,000 exceeds
    for weights in (None, units):
        found = kernel.sums(numbers, None, weights, components)
        assert apart(found, reference.sums(numbers, None, weights, components)) < near
    density = kernel.log_density(numbers, None, components)
    assert torch.allclose(density, reference.log_density(numbers, None, components), rtol=0, atol=nats)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    again = kernel.sums(numbers, None, units, components)
    assert all(torch.equal(getattr(again, name), getattr(found, name)) for name in NAMES)


@pytest.mark.parametrize("quadratic", [True, False])
def test_in_the_compiled_pass_a_component_far_away_has_no_records_and_a_record_far_away_no_other_component(forced, quadratic):
    numbers, _, components = mixture(700, 3, 4, True)
    components.means[1] += 1000
    numbers[5, 0] = 1e9
    forced(quadratic, F32, 700)
    found, true = kernel.sums(numbers, None, None, components), reference.sums(numbers, None, None, components)
    assert found.count[1] == 1 and true.count[1] == 1  # the record far away, which is nearest to it
    numbers[5, 0] = 0
    found = kernel.sums(numbers, None, None, components)
    assert found.count[1] == 0 and not found.first[1].any() and not found.second[1].any()


def test_squares_that_overflow_are_done_again_in_float64(forced):
    numbers, _, components = mixture(700, 3, 1, False)
    numbers[:20, 0] = 8e18  # the log-likelihood is within float32, the sum of squares is not
    forced(False, F32, 700)
    found, true = kernel.sums(numbers, None, None, components), reference.sums(numbers, None, None, components)
    assert apart(found, true) < 1e-9


def test_large_data_of_few_numbers_take_the_compiled_pass_and_nothing_else_does(monkeypatch):
    seen, really = [], compiled.sums
    monkeypatch.setattr(compiled, "sums", lambda x, *a: seen.append(tuple(x.shape)) or really(x, *a))
    for B, D, K, S in ((1000, 2, 2, 0), (1 << 17, 2, 2, 0), (1 << 17, 2, 2, 2), (1 << 16, 10, 2, 0), (1 << 17, 2, 700, 0)):
        numbers, onehots, components = mixture(B, D, K, S=S)
        kernel.sums(numbers, onehots, None, components)
    assert seen == [(1 << 17, 2)]


@pytest.mark.parametrize("thin", [1.0, 0.01, 0.001])
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e3, 1e4])
def test_thin_components_far_away_climb_as_high_as_in_float64(offset, thin):
    g = np.random.default_rng(0)
    x = g.normal(size=(6000, 4))
    x[:, 3] = x[:, 0] + thin * x[:, 3]
    x[3000:, [0, 3]] += 6
    x = (x + offset).astype(np.float32)
    means, covariance = x[[0, 3001]].astype(float), np.cov(x.T.astype(float)) * 0.3
    peer = GaussianMixture(2, max_iter=20, tol=0, reg_covar=0, weights_init=[0.5, 0.5], means_init=means,
                           precisions_init=np.linalg.inv(covariance)[None].repeat(2, axis=0))
    with pytest.warns(match="did not converge"):
        truth = peer.fit(x.astype(float)).score(x.astype(float))
    root = torch.linalg.inv(torch.linalg.cholesky(torch.from_numpy(covariance))).mT.contiguous()
    start = Components(torch.full((2,), 0.5, dtype=F64).log(), torch.from_numpy(means), root.repeat(2, 1, 1),
                       torch.zeros(2, 0, dtype=F64), torch.from_numpy(x).double().mean(dim=0))
    assert steps(torch.from_numpy(x), start, 20) == pytest.approx(truth, abs=1e-3)


@pytest.mark.parametrize("thin", [1.0, 0.1, 0.02, 1e-3, 1e-5])
@pytest.mark.parametrize("D", [2, 6])
def test_the_precision_that_is_chosen_keeps_densities_and_covariances(D, thin):
    """Components `thin` in one direction, some deviations from the middle; along its own axes no covariance is off by 2e-4."""
    numbers, _, components = mixture(3000, D, 3)
    stretch = torch.eye(D, dtype=F64)
    stretch[-1, 0], stretch[-1, -1] = 1.0, thin  # x_D becomes x_1 + thin x_D
    means = components.means @ stretch.mT
    L = stretch @ torch.linalg.inv(components.roots).mT
    components = replace(components, means=means, roots=torch.linalg.inv(torch.linalg.cholesky(L @ L.mT)).mT.contiguous(),
                         shift=means.mean(dim=0))
    x = (numbers.double() @ stretch.mT).float()
    found, true = kernel.sums(x, None, None, components), reference.sums(x, None, None, components)
    assert found.log_likelihood == pytest.approx(float(true.log_likelihood), rel=2e-6, abs=0.02)
    one, other = (s.second / s.count[:, None, None] - (s.first[:, :, None] * s.first[:, None, :]) / s.count[:, None, None] ** 2
                  for s in (found, true))
    own = torch.linalg.inv(torch.linalg.cholesky(other))
    assert float((own @ one @ own.mT - torch.eye(D)).abs().max()) < 2e-4
    error = kernel.log_density(x, None, components) - reference.log_density(x, None, components)
    assert float(error.square().mean().sqrt()) < 1e-3


def test_float32_is_used_where_it_is_enough_and_float64_data_stay_float64():
    numbers, _, components = mixture(2000, 16, 16)
    best = kernel._Way.best
    assert best(numbers, components, "auto", 2).dtype == F32
    assert best(numbers.double(), components, "auto", 2).dtype == F64
    far = replace(components, shift=components.shift + 1e4)
    assert best(numbers, far, "auto", 2) != best(numbers, components, "auto", 2)
    double = kernel.log_density(numbers.double(), None, components)
    assert torch.allclose(double, reference.log_density(numbers, None, components), rtol=0, atol=1e-11)


@pytest.mark.parametrize("thin", [1e-3, 1e-6])
def test_float64_is_centred_where_its_squares_would_cancel(thin):
    numbers, _, components = mixture(1000, 4, 2)
    x = (numbers.double() - components.means[0]) * thin + components.means[0]
    components = replace(components, roots=components.roots / thin)
    error = kernel.log_density(x, None, components) - reference.log_density(x, None, components)
    assert float(error.abs().max()) < 1e-7


@pytest.mark.parametrize("D", [2, 5])
def test_log_weights_and_logits_may_be_minus_infinity(D):
    numbers, onehots, components = mixture(600, D, 3, S=2)
    components = replace(components, log_weights=torch.tensor([0.5, 0.5, 0.0], dtype=F64).log(),
                         logits=torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], dtype=F64).log())
    found = kernel.sums(numbers, onehots, None, components)
    assert found.count[2] == 0
    assert float(found.categories[0, 1]) == 0
    assert found.log_likelihood.isfinite()


def test_a_record_beyond_the_squares_of_float32_is_counted_in_float64():
    numbers, _, components = mixture(1000, 5, 3)
    numbers[10] = 1e25
    found, true = kernel.sums(numbers, None, None, components), reference.sums(numbers, None, None, components)
    assert found.log_likelihood.isfinite()
    assert apart(found, true) < 1e-9


@pytest.mark.parametrize("B", [0, 1, 5, 257])
def test_a_few_records_or_none(B):
    numbers, onehots, components = mixture(B, 4, 3, S=3)
    found, true = kernel.sums(numbers, onehots, None, components), reference.sums(numbers, onehots, None, components)
    assert apart(found, true) < (1e-5 if B else 1.0) or B == 0
    assert kernel.log_density(numbers, onehots, components).shape == (B,)
    assert kernel.log_joint(numbers, onehots, components).shape == (B, 3)
    assert B or not any(getattr(found, name).any() for name in NAMES)


def test_sums_add_up_over_batches():
    numbers, onehots, components = mixture(3000, 6, 4, S=2)
    whole = kernel.sums(numbers, onehots, None, components)
    parts = [kernel.sums(numbers[a:z], onehots[a:z], None, components) for a, z in ((0, 700), (700, 710), (710, 3000))]
    added = Sums(*(sum(getattr(p, name) for p in parts) for name in NAMES))
    assert apart(added, whole) < 1e-6
