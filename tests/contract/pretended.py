"""A device that is not there: tensors are marked as being on it, and mixing them with others fails as it would on a GPU.

Where `Pretended` is active, "pretended" is the name of a device for `to` and for `device=`. What is computed is computed by the
CPU, bit for bit; only where tensors are is kept account of. Whole numbers of no axes may come from elsewhere, and so may
indices and `copy_`, as on a GPU; reading a tensor as an array takes `cpu()` first.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Device(str):
    """A device by its name. What PyTorch looks up by kind of device is what it has for the CPU."""

    __slots__ = ()
    type, index = "cpu", None


NAME = Device("pretended")
MOVES = {"to", "cpu"}
ANYWHERE = {"copy_", "__getitem__", "__setitem__", "set_", "__set__"}
READS = {"numpy", "__array__"}


def is_far(value: Any) -> bool:
    """Whether a tensor is marked."""
    return getattr(value, "_far", False)


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (t for part in value.values() for t in tensors(part))
    elif isinstance(value, list | tuple):
        yield from (t for part in value for t in tensors(part))


def marked(value: Any, far: bool = True) -> Any:
    """The same, with all of its tensors marked."""
    for tensor in tensors(value):
        tensor._far = far
    return value


def placed(module: nn.Module) -> nn.Module:
    """The module with all of its parameters and buffers on the device."""
    for tensor in (*module.parameters(), *module.buffers()):
        marked(tensor)
    return module


class Pretended(TorchFunctionMode):
    """Where there is such a device."""

    def __enter__(self) -> Any:
        self.moves = nn.Module.to

        def to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
            if NAME in map(str, args):
                return placed(module)
            for tensor in (*module.parameters(), *module.buffers()) if "cpu" in map(str, args) else ():
                marked(tensor, False)
            return self.moves(module, *args, **kwargs)
        nn.Module.to = to
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        nn.Module.to = self.moves
        super().__exit__(*error)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        own = getattr(function, "__self__", None)
        if name == "__get__" and own is Tensor.device:
            return NAME if is_far(args[0]) else function(*args, **kwargs)
        if name == "__get__":
            found = function(*args, **kwargs)
            return marked(found) if isinstance(found, Tensor) and is_far(args[0]) else found
        if name in MOVES and isinstance(args[0], Tensor):
            return self.moved(function, name, args, kwargs)
        if name in READS and is_far(args[0]):
            raise TypeError("a tensor on a device cannot be read as an array: cpu() first")
        wanted = kwargs.get("device")
        if wanted is not None and str(wanted) == NAME:
            kwargs["device"] = "cpu"
            return marked(function(*args, **kwargs))
        given = list(tensors([args, kwargs]))
        far = any(map(is_far, given))
        if far and name not in ANYWHERE and not all(is_far(t) or t.ndim == 0 for t in given):
            raise RuntimeError(f"{name}: tensors of shapes {[(tuple(t.shape), is_far(t)) for t in given]} are not all there")
        elsewhere = name in ANYWHERE and not (args and is_far(args[0]))
        found = function(*args, **kwargs)
        return found if not far or elsewhere or (wanted is not None) else marked(found)

    def moved(self, function: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """`to` and `cpu`."""
        this, *rest = args
        far = is_far(this) and name != "cpu"
        dtype, flags = this.dtype, list[bool]()
        for value in rest:
            if isinstance(value, Tensor):
                far, dtype = is_far(value), value.dtype
            elif isinstance(value, str | torch.device):
                far = str(value) == NAME
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, bool):
                flags.append(value)
        if "device" in kwargs:
            far = str(kwargs.pop("device")) == NAME
        found = function(this, kwargs.pop("dtype", None) or dtype, *flags, **kwargs) if name == "to" else this
        if far == is_far(this):
            return marked(found, far)
        return marked(found.clone() if found is this else found, far)
