"""Folders of Hugging Face: config.json, weights as safetensors, tokenizer.json.

What is written is a standard class of transformers, which also vLLM and others load. The weights stand in model.safetensors, or
where they are many in shards with model.safetensors.index.json.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CorruptStore, Refused, near, printable
from ..folders import partial, replace, write
from ..sealed import check_finite, to_json
from .imported import CHAT, Imported, check_tensors, check_vacant, check_whole, listed
from .parts import gathered, parts, scattered, stored_sizes
from .settings import Settings, parsed
from .shapes import architecture, config_from, kind_of, layout_of, shape_from, without_biases

__all__ = ["read_folder", "write_folder"]

CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
GENERATION, WORDS = "generation_config.json", "tokenizer_config.json"
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
SHARD = 2 ** 31  # bytes of a file of weights, at most, unless one tensor has more
FLOATS = {"F64", "F32", "F16", "BF16"}
AGAIN = "Get the whole folder again."


def read_folder(path: str | Path) -> Imported:
    """The model of a folder; weights become float32. start and stop are the tokens that config.json names, or else
    generation_config.json or tokenizer_config.json, the first of several; one outside the vocabulary is none.

    Raises CorruptStore: CKPT_MISSING without the folder, config.json or weights, CKPT_FORMAT for a damaged file, CKPT_SHAPE for
    tensors that are absent or do not fit, CKPT_NONFINITE; Incompatible: IMPORT_KIND for another architecture, IMPORT_SETTING
    for a setting of it that is not known here; Refused PICKLE_REFUSED where the weights would have to be unpickled.
    """
    folder = Path(path)
    _check_folder(folder)
    where = f"{printable(path)}/{CONFIG}"
    config = parsed(_content(folder, CONFIG), where)
    kind = architecture(config, where)
    shape, bare = shape_from(config, kind, where)
    found = _tensors(folder)
    if not any(name.startswith(layout_of(kind).prefix) for name in found):
        found = {name if name.startswith("lm_head.") else layout_of(kind).prefix + name: at for name, at in found.items()}
    _check_blocks(shape.blocks, found, where)
    pieces = parts(shape, layout_of(kind), bare)
    wanted = stored_sizes(pieces)
    unread = (*layout_of(kind).spare, *(("lm_head.weight",) if shape.tied else ()))
    found = {name: at for name, at in found.items() if name in wanted or not name.endswith(unread)}
    check_tensors(printable(path), wanted, {name: size for name, (size, _) in found.items()},
                  f"Get the folder again; {CONFIG} may also be that of another model.")
    tensors = gathered(pieces, lambda name: found[name][1]())
    check_finite(path, tensors)
    tokenizer = _text(folder, TOKENIZER)
    return Imported(shape, tensors, tokenizer, **_ids(folder, config, tokenizer, shape.vocabulary))


def write_folder(path: str | Path, model: Imported, shard: int = SHARD) -> None:
    """The model as a folder that transformers loads by itself; weights in files of at most `shard` bytes, float32.

    Raises Incompatible EXPORT_SHAPE for a setting that no class of transformers has, CannotWrite OUT_EXISTS, OUT_DENIED,
    DISK_FULL or IO_ERROR; then nothing is left behind.
    """
    kind = kind_of(model.shape)
    check_whole(model)
    place = check_vacant(path)
    pieces = parts(model.shape, layout_of(kind), without_biases(model.shape, kind))
    ids = {f"{name}_token_id": i for name, i in (("bos", model.start), ("eos", model.stop), ("pad", model.pad))}
    with partial(place) as folder:
        write(folder / CONFIG, to_json({**config_from(model.shape, kind), **ids}))
        stops = [i for i in (model.stop, model.end) if i is not None]
        told = ids | {"eos_token_id": stops if len(stops) > 1 else next(iter(stops), None)}
        write(folder / GENERATION, to_json({name: i for name, i in told.items() if i is not None}))
        if model.tokenizer is not None:
            write(folder / TOKENIZER, model.tokenizer.encode())
            write(folder / WORDS, to_json(_words(model)))
        _write_weights(folder, _shards(scattered(pieces, model.tensors), shard))
        replace(folder, place)


def _check_folder(folder: Path) -> None:
    """Raises where there is no folder with config.json and weights."""
    shown = printable(folder)
    if not folder.is_dir():
        if folder.suffix.lower() in PICKLES:
            raise _pickled(shown, folder.name)
        if folder.exists():
            raise CorruptStore("CKPT_FORMAT", f"{shown} is a file; what is read is a folder with {CONFIG}.", "Give the folder.")
        there = [printable(entry.name) for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise CorruptStore("CKPT_MISSING", f"{shown} does not exist.", near(folder.name, there) if there else "")
    names = sorted(entry.name for entry in folder.iterdir())
    if CONFIG not in names:
        ours = "It is a model of verossim already: use it as it is." if "model.json" in names else \
            f"Give a folder in the layout of Hugging Face; this one holds {listed([printable(n) for n in names]) or 'nothing'}."
        raise CorruptStore("CKPT_MISSING", f"{shown} has no {CONFIG}.", ours)
    if WEIGHTS not in names and INDEX not in names:
        pickles = [name for name in names if Path(name).suffix.lower() in PICKLES]
        if pickles:
            raise _pickled(shown, pickles[0])
        raise CorruptStore("CKPT_MISSING", f"{shown} has no {WEIGHTS} and no {INDEX}.", AGAIN)


def _pickled(shown: str, name: str) -> Refused:
    return Refused("PICKLE_REFUSED", f"{shown}: {printable(name)} is a kind of file that only unpickling could read, and that "
                   "runs whatever code the file names.", "Ask for the weights as safetensors, which save_pretrained writes.")


def _content(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise CorruptStore("CKPT_MISSING", f"{printable(folder)}/{name} cannot be read: {error.strerror}.", AGAIN) from error


def _text(folder: Path, name: str) -> str | None:
    """The text of a JSON file, None where there is none."""
    if not (folder / name).exists():
        return None
    content = _content(folder, name)
    parsed(content, f"{printable(folder)}/{name}")
    return content.decode()


def _tensors(folder: Path) -> dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]]:
    """The size of each tensor of a folder and what reads it, by name. Only the heads of the files are read here."""
    files = [WEIGHTS]
    if not (folder / WEIGHTS).exists():
        where = f"{printable(folder)}/{INDEX}"
        named = parsed(_content(folder, INDEX), where).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(file, str) and re.fullmatch(r"[^/\\]+\.safetensors", file)
                                                  for file in named.values()):
            raise CorruptStore("CKPT_FORMAT", f"{where}: 'weight_map' does not say which file each tensor is in.", AGAIN)
        files = sorted(set(named.values()))
    found: dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]] = {}
    for file in files:
        found |= _heads(folder / file, f"{printable(folder)}/{printable(file)}")
    return found


def _heads(file: Path, where: str) -> dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]]:
    found: dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]] = {}
    try:
        opened = safe_open(file, framework="pt")
        for name in opened.keys():  # noqa: SIM118
            piece = opened.get_slice(name)
            if piece.get_dtype() not in FLOATS:
                raise CorruptStore("CKPT_FORMAT", f"{where}: '{printable(name)}' is of type {piece.get_dtype()}; what can be "
                                   "read are floating-point weights.", "Choose a model whose weights are not quantised.")
            found[name] = tuple(piece.get_shape()), lambda name=name: opened.get_tensor(name)  # type: ignore[misc]
    except SafetensorError as error:
        raise CorruptStore("CKPT_FORMAT", f"{where} is not a safetensors file: {printable(error)}.", AGAIN) from error
    except OSError as error:
        raise CorruptStore("CKPT_MISSING", f"{where} cannot be read: {printable(error.strerror or error)}.", AGAIN) from error
    return found


def _check_blocks(blocks: int, found: dict[str, Any], where: str) -> None:
    """Raises CorruptStore CKPT_SHAPE for more blocks than there are tensors, before so many are counted up."""
    if blocks > len(found):
        raise CorruptStore("CKPT_SHAPE", f"{where} names {blocks:,} blocks, and there are {len(found):,} tensors.", AGAIN)


def _ids(folder: Path, config: dict[str, Any], tokenizer: str | None, vocabulary: int) -> dict[str, int | None]:
    """start, stop and pad."""
    at = printable(folder)
    spoken = [Settings(config, f"{at}/{CONFIG}")]
    spoken += [Settings(parsed(text.encode(), f"{at}/{GENERATION}"), f"{at}/{GENERATION}")
               for text in (_text(folder, GENERATION),) if text is not None]
    words = json.loads(_text(folder, WORDS) or "{}")
    numbers = _numbers(tokenizer, f"{at}/{TOKENIZER}")

    def token(name: str) -> int | None:
        said = [i for i in (settings.token(f"{name}_token_id", vocabulary) for settings in spoken) if i is not None]
        word = words.get(f"{name}_token")
        word = word.get("content") if isinstance(word, dict) else word
        number = numbers.get(word) if isinstance(word, str) else None
        return next(iter(said), number if number is not None and 0 <= number < vocabulary else None)

    end = numbers.get("<|end|>") if words.get("chat_template") == CHAT else None
    return {"start": token("bos"), "stop": token("eos"), "pad": token("pad"), "end": end}


def _numbers(tokenizer: str | None, where: str) -> dict[str, int]:
    """The number of each added token of a tokenizer.json, by its text."""
    added = json.loads(tokenizer or "{}").get("added_tokens") or []
    try:
        return {token["content"]: int(token["id"]) for token in added}
    except (TypeError, KeyError, ValueError) as error:
        raise CorruptStore("CKPT_FORMAT", f"{where}: 'added_tokens' is not a list of tokens.", "Get the file again.") from error


def _words(model: Imported) -> dict[str, Any]:
    """tokenizer_config.json: the class that takes tokenizer.json as it is, and the texts of the special tokens."""
    texts = {number: text for text, number in _numbers(model.tokenizer, TOKENIZER).items()}
    special = {"bos_token": model.start, "eos_token": model.stop, "pad_token": model.pad}
    chats = {} if model.end is None else {"chat_template": CHAT}
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.shape.length, **chats,
            "clean_up_tokenization_spaces": False, **{name: texts[i] for name, i in special.items() if i in texts}}


def _shards(named: Iterator[tuple[str, Tensor]], most: int) -> Iterator[dict[str, Tensor]]:
    """Tensors in groups of at most `most` bytes, or of one that has more."""
    group: dict[str, Tensor] = {}
    for name, tensor in named:
        if group and sum(t.nbytes for t in group.values()) + tensor.nbytes > most:
            yield group
            group = {}
        group[name] = tensor
    yield group


def _write_weights(folder: Path, shards: Iterator[dict[str, Tensor]]) -> None:
    """The files of weights, and their index where there are several. transformers asks for the word "pt" in each."""
    files: list[list[str]] = []
    total = 0
    for number, group in enumerate(shards):
        write(folder / f"{number}{WEIGHTS}", safetensors.torch.save(group, metadata={"format": "pt"}))
        files.append(list(group))
        total += sum(tensor.nbytes for tensor in group.values())
    if len(files) == 1:
        (folder / f"0{WEIGHTS}").rename(folder / WEIGHTS)
        return
    names = [f"model-{number + 1:05}-of-{len(files):05}.safetensors" for number in range(len(files))]
    for number, name in enumerate(names):
        (folder / f"{number}{WEIGHTS}").rename(folder / name)
    index = {name: file for file, group in zip(names, files, strict=True) for name in group}
    write(folder / INDEX, to_json({"metadata": {"total_size": total}, "weight_map": index}))
