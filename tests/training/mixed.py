"""Records of four numbers and a category, some of them unknown."""

import torch

from verossim.spaces import Batch, Continuous
from verossim.training import InMemory


def records(count: int = 2_000) -> tuple[Continuous, InMemory]:
    """Their space, and the records: three groups, a tenth of which lack a number or the category."""
    generator = torch.Generator().manual_seed(8)
    group = torch.randint(3, (count,), generator=generator)
    numbers = torch.randn(count, 4, generator=generator, dtype=torch.float64) + 3 * group[:, None]
    kind = torch.nn.functional.one_hot((group + torch.randint(2, (count,), generator=generator)) % 3, 3).double()
    x = torch.cat([numbers, kind], dim=1)
    x[: count // 20, 1] = torch.nan
    x[count // 20: count // 10, 4:] = torch.nan
    space = Continuous(shape=(7,), axes=("number",), simplexes=((4, 7),))
    return space, InMemory(Batch(x, None, torch.ones(count), torch.arange(count)))
