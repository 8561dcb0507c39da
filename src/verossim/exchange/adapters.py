"""Low-rank adapters as the library PEFT reads them, beside a model that was written for transformers.

    adapter_config.json    rank, alpha and the modules that are adapted
    adapter_model.safetensors    base_model.model.NAME.lora_A.weight (r, in) and lora_B.weight (out, r)

Where queries, keys and values are one matrix there (GPT-2), the adapters of all three are one of three times the rank, whose B
is zero but for their blocks; alpha is then three times as large, so that alpha / r is the same.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ..folders import partial, replace, write
from ..nn.language import Shape
from ..sealed import to_json
from .imported import check_vacant
from .parts import Layout
from .shapes import kind_of, layout_of

__all__ = ["Pairs", "write_adapters"]

CONFIG, WEIGHTS, START = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
Pairs = Mapping[str, list[tuple[Tensor, Tensor]]]  # A (r, in) and B (out, r) of each piece of a matrix, by the matrix's name


def write_adapters(path: str | Path, shape: Shape, pairs: Pairs, rank: int, alpha: float) -> None:
    """Adapters of LanguageModel(shape) as a folder that PEFT loads on the model that `write_folder` writes.

    Raises Incompatible EXPORT_SHAPE for a setting that no class of transformers has, CannotWrite OUT_EXISTS, OUT_DENIED,
    DISK_FULL or IO_ERROR; then nothing is left behind.
    """
    kind = kind_of(shape)
    place = check_vacant(path)
    named = {name: pair for matrix, pieces in pairs.items() for name, pair in _named(matrix, pieces, layout_of(kind))}
    wide = {name.rpartition(".")[2]: len(A) // rank for name, (A, _) in named.items() if len(A) > rank}
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "inference_mode": True,
              "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": kind == "gpt2",
              "target_modules": sorted({name.rpartition(".")[2] for name in named}),
              "rank_pattern": {name: rank * times for name, times in wide.items()},
              "alpha_pattern": {name: alpha * times for name, times in wide.items()}}
    tensors = {f"{START}{name}.lora_{letter}.weight": tensor.detach().to("cpu", torch.float32).contiguous()
               for name, pair in named.items() for letter, tensor in zip("AB", pair, strict=True)}
    with partial(place) as folder:
        write(folder / CONFIG, to_json(config))
        write(folder / WEIGHTS, safetensors.torch.save(tensors, metadata={"format": "pt"}))
        replace(folder, place)


def _named(matrix: str, pieces: list[tuple[Tensor, Tensor]], layout: Layout) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """The names of a matrix's adapters there, and they; those of several pieces in one where one matrix has them all."""
    _, number, module = matrix.split(".", 2)
    names = layout.inner[module]
    if len(names) < len(pieces):
        pieces = [(torch.cat([A for A, _ in pieces]), torch.block_diag(*(B for _, B in pieces)))]
    for name, pair in zip(names, pieces, strict=True):
        yield f"{layout.block.format(number)}{name}", pair
