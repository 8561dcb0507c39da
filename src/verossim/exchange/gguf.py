"""GGUF files, which llama.cpp and what is built on it read: settings, tokenizer and weights in one.

What is written is float32, of the architectures gpt2, llama, qwen2 and qwen3. What is read may be quantised; then its weights
are what the quantised ones stand for. The tokenizer.json goes along whole under "tokenizer.huggingface.json".
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CorruptStore, Incompatible, MissingExtra, printable
from ..folders import partial
from ..nn.language import Shape
from ..sealed import check_finite
from .imported import CHAT, Imported, check_tensors, check_vacant, check_whole
from .parts import GPT2_GGUF, ROTARY_GGUF, Layout, gathered, parts, scattered, stored_sizes
from .settings import Settings
from .shapes import ARCHITECTURES, ATTENTION, MLP, kind_of
from .vocabulary import metadata_from, tokenizer_from

__all__ = ["read_gguf", "write_gguf"]

TOKENIZER, WHOLE = "tokenizer.ggml.", "tokenizer.huggingface.json"
IDS = {"start": "bos_token_id", "stop": "eos_token_id", "pad": "padding_token_id", "end": "eot_token_id"}
BIASED = {"attention.qkv": "attn_q", "attention.out": "attn_output", "mlp.inner": "ffn_up", "mlp.out": "ffn_down"}
AGAIN = "Get the file again."


def read_gguf(path: str | Path) -> Imported:
    """The model of a GGUF file; weights become float32. tokenizer : the tokenizer.json in it, or one made from its tokens and
    merges where it is a byte-level BPE.

    Raises MissingExtra without the package `gguf`; CorruptStore CKPT_MISSING, CKPT_FORMAT, CKPT_SHAPE or CKPT_NONFINITE;
    Incompatible IMPORT_KIND for another architecture, IMPORT_SETTING for a setting that is not known here.
    """
    where = printable(path)
    values, stored = _opened(Path(path), where)
    kind = str(values.get("general.architecture"))
    if kind not in ARCHITECTURES:
        raise Incompatible("IMPORT_KIND", f"{where}: the architecture is {printable(kind)}, which cannot be read.",
                           f"Those that can be: {', '.join(ARCHITECTURES)}.")
    found = {name: tuple(map(int, tensor.shape))[::-1] for name, tensor in stored.items()}
    shape, bare = _shape(Settings(values, where, f"{kind}."), kind, found)
    pieces = parts(shape, _layout(kind), bare, kind == "llama")
    check_tensors(where, stored_sizes(pieces), found, AGAIN)
    tensors = gathered(pieces, lambda name: _weights(stored[name], where))
    check_finite(path, tensors)
    words = Settings(values, where, TOKENIZER)
    tokenizer = values.get(WHOLE) or tokenizer_from({n.removeprefix(TOKENIZER): v for n, v in values.items()})
    return Imported(shape, tensors, tokenizer, **{name: words.token(key, shape.vocabulary) for name, key in IDS.items()})


def write_gguf(path: str | Path, model: Imported) -> None:
    """The model as one file, float32.

    Raises MissingExtra without the package `gguf`; Incompatible EXPORT_SHAPE for a setting that no architecture has,
    EXPORT_TOKENIZER for a tokenizer that is no byte-level BPE or cuts text in a way that llama.cpp does not know; CannotWrite
    OUT_EXISTS, OUT_DENIED, DISK_FULL or IO_ERROR; then nothing is left behind.
    """
    gguf = _package()
    kind = kind_of(model.shape)
    _check_written(model.shape, kind)
    check_whole(model)
    place = check_vacant(path)
    pieces = parts(model.shape, _layout(kind), frozenset(), kind == "llama")
    with partial(place) as folder:
        writer = gguf.GGUFWriter(folder / "model", kind)
        try:
            writer.add_file_type(0)
            for name, value in (_settings(model.shape, kind) | _words(model)).items():
                _add(writer, name, value)
            for name, tensor in scattered(pieces, model.tensors):
                writer.add_tensor(name, tensor.numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        _on_disk(folder / "model")
        (folder / "model").replace(place)
        _on_disk(place.parent)


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtra("EXTRA", "GGUF files need the package 'gguf'.", "Install it with: pip install 'verossim[exchange]'."
                           ) from error
    return gguf


def _opened(path: Path, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the head of a file says, by name, and its tensors, still on the disk."""
    gguf = _package()
    try:
        reader = gguf.GGUFReader(path)
        return {name: field.contents() for name, field in reader.fields.items()}, {t.name: t for t in reader.tensors}
    except OSError as error:
        raise CorruptStore("CKPT_MISSING", f"{where} cannot be read: {error.strerror}.", "Give a GGUF file.") from error
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise CorruptStore("CKPT_FORMAT", f"{where} is no GGUF file, or is damaged: {printable(error)}.", AGAIN) from error


def _layout(kind: str) -> Layout:
    return GPT2_GGUF if kind == "gpt2" else ROTARY_GGUF


def _weights(stored: Any, where: str) -> Tensor:
    """A tensor of a file, float32."""
    gguf = _package()
    try:
        plain = gguf.quants.dequantize(stored.data, stored.tensor_type)
    except NotImplementedError as error:
        raise CorruptStore("CKPT_FORMAT", f"{where}: '{printable(stored.name)}' is of type {stored.tensor_type.name}, which "
                           "cannot be read.", "Choose a file of another quantisation, such as F16 or Q8_0.") from error
    return torch.from_numpy(np.array(plain, dtype=np.float32))


def _shape(settings: Settings, kind: str, stored: dict[str, tuple[int, ...]]) -> tuple[Shape, frozenset[str]]:
    """The shape, and the modules without biases in the file. What the head does not say follows from the tensors."""
    settings.only("rope.scaling.type", "none")
    settings.only("rope.scale_linear", 1, 1.0)
    if "rope_freqs.weight" in stored:
        raise Incompatible("IMPORT_SETTING", f"{settings.where}: rotations are scaled, by 'rope_freqs.weight'; rotation "
                           "without scaling is what can be read.", "Choose a model without that.")
    width, H, blocks = (settings.integer(name) for name in ("embedding_length", "attention.head_count", "block_count"))
    G, D = settings.integer("attention.head_count_kv", H), settings.integer("attention.key_length", max(1, width // H))
    settings.only("attention.value_length", D)
    if kind != "gpt2":
        settings.only("rope.dimension_count", D)
        if D % 2 or H % G:
            raise settings.refused("attention.key_length" if D % 2 else "attention.head_count_kv",
                                   "an even number" if D % 2 else f"a divisor of the heads, {H},")
    if blocks > len(stored):
        raise settings.refused("block_count", f"at most {len(stored)}, for so many tensors there are,")
    learned = kind == "gpt2"
    biased = {module for module, name in BIASED.items() if f"blk.0.{name}.bias" in stored}
    biases = "all" if learned or biased - {"attention.qkv"} else "qkv" if biased else "none"
    shape = Shape(
        vocabulary=stored.get("token_embd.weight", (0,))[0], length=settings.integer("context_length"), width=width,
        blocks=blocks, heads=H, groups=G, head=D,
        inside=settings.integer("feed_forward_length"), positions="learned" if learned else "rotary",
        base=10_000.0 if learned else _short(settings.number("rope.freq_base", 10_000.0)), norm="layer" if learned else "rms",
        eps=_short(settings.number("attention.layer_norm_epsilon" if learned else "attention.layer_norm_rms_epsilon", 1e-5)),
        normed_heads=kind == "qwen3", activation="gelu_tanh" if learned else "swiglu", biases=biases,
        tied="output.weight" not in stored,
    )
    return shape, frozenset() if learned or biases != "all" else (ATTENTION | MLP) - biased


def _short(value: float) -> float:
    """The shortest number that rounds to the same float32: 1e-6 is written so, and read as another without this."""
    return float(str(np.float32(value)))


def _check_written(shape: Shape, kind: str) -> None:
    """Raises Incompatible EXPORT_SHAPE for what a class of transformers has and llama.cpp has not."""
    wanted: dict[str, Any] = {"gpt2": {"activation": "gelu_tanh"}, "qwen3": {"biases": "none"}}.get(kind, {})
    if kind in ("llama", "qwen2") and shape.biases != "none":
        wanted = {"head": shape.width / shape.heads}
    for name, value in wanted.items():
        if getattr(shape, name) != value:
            raise Incompatible("EXPORT_SHAPE", f"'{name}' is {getattr(shape, name)!r}, and llama.cpp's {kind} needs {value!r}.",
                               "Export the model as a Hugging Face folder.")


def _settings(shape: Shape, kind: str) -> dict[str, Any]:
    """The head of a file, by name."""
    values: dict[str, Any] = {
        "vocab_size": shape.vocabulary, "context_length": shape.length, "embedding_length": shape.width,
        "block_count": shape.blocks, "feed_forward_length": shape.inside, "attention.head_count": shape.heads,
    }
    if kind == "gpt2":
        values["attention.layer_norm_epsilon"] = shape.eps
    else:
        values |= {"attention.head_count_kv": shape.groups, "attention.layer_norm_rms_epsilon": shape.eps,
                   "attention.key_length": shape.head, "attention.value_length": shape.head,
                   "rope.dimension_count": shape.head, "rope.freq_base": shape.base}
    return {f"{kind}.{name}": value for name, value in values.items()}


def _words(model: Imported) -> dict[str, Any]:
    """The tokenizer in the head of a file, by name; llama.cpp's word for none is "none"."""
    ids: dict[str, Any] = {word: i for name, word in IDS.items() if (i := getattr(model, name)) is not None}
    ids |= {} if model.end is None else {"chat_template": CHAT}
    if model.tokenizer is None:
        return {f"{TOKENIZER}{name}": value for name, value in ({"model": "none"} | ids).items()}
    words = metadata_from(model.tokenizer, model.shape.vocabulary, model.start) | ids
    return {**{f"{TOKENIZER}{name}": value for name, value in words.items()}, WHOLE: model.tokenizer}


def _add(writer: Any, name: str, value: Any) -> None:
    kinds: dict[type, Callable[[str, Any], None]] = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
                                                     str: writer.add_string, list: writer.add_array}
    kinds[type(value)](name, value)


def _on_disk(path: Path) -> None:
    """A file, or the names in a folder, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
