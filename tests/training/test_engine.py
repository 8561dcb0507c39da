"""Several processes learn what one learns."""

import pytest
import torch
from mixed import records
from ranks import spawned
from tiny import Normals, line

from verossim.families.gmm import GMM
from verossim.training import Engine, Learning, begin, learn

WORKER = """
import json, sys
import torch
from tiny import Normals, line
from verossim.training import Engine, Learning, begin, learn

torch.set_num_threads(1)
records, stepwise = int(sys.argv[1]), sys.argv[2] == "stepwise"
engine = Engine.start()
data = line(records, (-1.0, 1.0))
family = Normals(Normals.Config(components=2))
begin(family, data, 5 if engine.first else 6, engine)
history = learn(family, data, batch=300, config=Learning(iterations=12, tolerance=0.0, stepwise=stepwise), engine=engine)
rows = engine.gather(torch.full((engine.rank + 1, 2), float(engine.rank)))
told = {"coordinates": family.coordinates().tolist(), "objectives": history.objectives, "rows": rows.tolist(),
        "first": engine.first, "ranks": engine.ranks}
engine.close()
sys.stdout.write(json.dumps(told))
"""


@pytest.mark.parametrize("records", [2_000, 250])  # of 250 records the second rank has none
def test_two_processes_equal_one(records):
    family = Normals(Normals.Config(components=2))
    data = line(records, (-1.0, 1.0))
    begin(family, data, 5)
    history = learn(family, data, batch=300, config=Learning(iterations=12, tolerance=0.0))
    zero, one = spawned(WORKER, records, "sweeps")
    assert zero["coordinates"] == one["coordinates"]
    assert zero["coordinates"] == pytest.approx(family.coordinates().tolist(), abs=1e-9)
    assert zero["objectives"] == pytest.approx(list(history.objectives), abs=1e-9)
    assert (zero["first"], one["first"], one["ranks"]) == (True, False, 2)
    assert zero["rows"] == one["rows"] == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]


def test_stepwise_ranks_agree_when_one_has_more_batches():
    zero, one = spawned(WORKER, 700, "stepwise")  # three batches: two for the first rank, one for the second
    assert zero["coordinates"] == one["coordinates"]
    assert all(-5 < objective < 0 for objective in zero["objectives"])


def test_alone_every_verb_is_the_identity():
    engine = Engine.start()
    parts = {"a": torch.ones(2, 3)}
    assert (engine.rank, engine.ranks, engine.first) == (0, 1, True)
    assert engine.sum(parts) is parts
    assert engine.share(parts) is parts
    assert engine.gather(parts["a"]) is parts["a"]
    engine.close()


MIXTURE = """
import json, sys
import torch
from mixed import records
from verossim.families.gmm import GMM
from verossim.training import Engine, Learning, begin, learn

torch.set_num_threads(1)
engine = Engine.start()
space, data = records()
told = []
for covariance in sys.argv[1:]:
    family = GMM(GMM.Config(components=3, covariance=covariance), space)
    begin(family, data, 5 if engine.first else 6, engine)
    history = learn(family, data, batch=700, config=Learning(iterations=10, tolerance=0.0), engine=engine)
    told.append({"coordinates": family.coordinates().tolist(), "objectives": history.objectives})
engine.close()
sys.stdout.write(json.dumps(told))
"""


def test_a_mixture_of_two_processes_equals_that_of_one():
    """Numbers, a category and missing cells, for every kind of covariance."""
    space, data = records()
    kinds = ["full", "tied", "diag", "spherical", "factors"]
    zero, one = spawned(MIXTURE, *kinds)
    assert zero == one and len(zero) == len(kinds)
    for covariance, found in zip(kinds, zero, strict=True):
        family = GMM(GMM.Config(components=3, covariance=covariance), space)
        begin(family, data, 5)
        history = learn(family, data, batch=700, config=Learning(iterations=10, tolerance=0.0))
        assert found["coordinates"] == pytest.approx(family.coordinates().tolist(), rel=1e-9, abs=1e-9), covariance
        assert found["objectives"] == pytest.approx(list(history.objectives), abs=1e-9), covariance
