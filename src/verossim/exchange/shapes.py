"""What config.json of a Hugging Face folder says, as a Shape, and the other way."""

from typing import Any

from ..errors import Incompatible, printable
from ..nn.language import Shape
from .parts import GPT2, ROTARY, Layout
from .settings import Settings

__all__ = ["ARCHITECTURES", "architecture", "config_from", "kind_of", "layout_of", "shape_from", "without_biases"]

#: The class of transformers with a head, by the kind that config.json names.
ARCHITECTURES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM",
                 "qwen3": "Qwen3ForCausalLM"}
BODIES = {"gpt2": "GPT2Model", "llama": "LlamaModel", "qwen2": "Qwen2Model", "qwen3": "Qwen3Model"}
UNGATED = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu2": "relu2"}
GATED = {"silu": "swiglu", "swish": "swiglu"}
WRITTEN = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu2": "relu2"}
LENGTHS = {"llama": 2048, "qwen2": 32768, "qwen3": 32768}  # where config.json says none
ATTENTION, MLP = frozenset({"attention.qkv", "attention.out"}), frozenset({"mlp.inner", "mlp.out"})


def architecture(config: dict[str, Any], where: str) -> str:
    """"gpt2", "llama", "qwen2" or "qwen3". Raises Incompatible IMPORT_KIND that names any other."""
    names, kind = config.get("architectures"), config.get("model_type")
    name = names[0] if isinstance(names, list) and names else None
    for known in ARCHITECTURES:
        if name in (ARCHITECTURES[known], BODIES[known]) or (name is None and kind == known):
            return known
    raise Incompatible("IMPORT_KIND", f"{where}: the architecture is {printable(name or kind)}, which cannot be read.",
                       f"Those that can be: {', '.join(ARCHITECTURES.values())}; SmolLM is Llama's.")


def layout_of(kind: str) -> Layout:
    """How the tensors of a kind are called."""
    return GPT2 if kind == "gpt2" else ROTARY


def shape_from(config: dict[str, Any], kind: str, where: str) -> tuple[Shape, frozenset[str]]:
    """The shape, and the modules that have no biases though the shape has. Raises Incompatible IMPORT_SETTING."""
    settings = Settings(config, where)
    settings.only("quantization_config")
    return (_gpt2(settings), frozenset()) if kind == "gpt2" else _rotary(settings, kind)


def _gpt2(settings: Settings) -> Shape:
    settings.only("scale_attn_weights", True)
    settings.only("scale_attn_by_inverse_layer_idx", False)
    settings.only("add_cross_attention", False)
    width, H = settings.integer("n_embd"), settings.integer("n_head")
    if width % H:
        raise settings.refused("n_head", f"a divisor of n_embd, {width},")
    return Shape(
        vocabulary=settings.integer("vocab_size"), length=settings.integer("n_positions"), width=width,
        blocks=settings.integer("n_layer"), heads=H, groups=H, head=width // H, inside=settings.integer("n_inner", 4 * width),
        positions="learned", norm="layer", eps=settings.number("layer_norm_epsilon", 1e-5), normed_heads=False,
        activation=settings.word("activation_function", "gelu_new", UNGATED), biases="all",
        tied=settings.flag("tie_word_embeddings", True),
    )


def _rotary(settings: Settings, kind: str) -> tuple[Shape, frozenset[str]]:
    if settings.flag("use_sliding_window", False):
        raise settings.refused("use_sliding_window", "false")
    kinds = settings.get("layer_types") or []
    if not isinstance(kinds, list) or any(each != "full_attention" for each in kinds):
        raise settings.refused("layer_types", "'full_attention' in each block")
    width, H = settings.integer("hidden_size"), settings.integer("num_attention_heads")
    G = settings.integer("num_key_value_heads", H)
    D = settings.integer("head_dim", 128 if kind == "qwen3" else max(1, width // H))
    if H % G:
        raise settings.refused("num_key_value_heads", f"a divisor of num_attention_heads, {H},")
    if D % 2:
        raise settings.refused("head_dim", "an even number")
    attention = kind != "qwen2" and settings.flag("attention_bias", False)
    mlp = kind == "llama" and settings.flag("mlp_bias", False)
    shape = Shape(
        vocabulary=settings.integer("vocab_size"), length=settings.integer("max_position_embeddings", LENGTHS[kind]),
        width=width, blocks=settings.integer("num_hidden_layers"), heads=H, groups=G, head=D,
        inside=settings.integer("intermediate_size"), base=_base(settings),
        eps=settings.number("rms_norm_eps", 1e-6), normed_heads=kind == "qwen3",
        activation=settings.word("hidden_act", "silu", GATED),
        biases="qkv" if kind == "qwen2" else "all" if attention or mlp else "none",
        tied=settings.flag("tie_word_embeddings", False),
    )
    bare = (frozenset() if attention else ATTENTION) | (frozenset() if mlp else MLP)
    return shape, bare if shape.biases == "all" else frozenset()


def _base(settings: Settings) -> float:
    """The base of the rotations, wherever it is said. Raises where they are scaled."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = settings.get(name) or {}
        if not isinstance(rope, dict):
            raise settings.refused(name, "an object")
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise settings.refused(name, "rotation without scaling ('default')")
        Settings(rope, settings.where).only("partial_rotary_factor", 1, 1.0)
    settings.only("partial_rotary_factor", 1, 1.0)
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    return Settings(rope, settings.where).number("rope_theta", settings.number("rope_theta", 10_000.0))


def kind_of(shape: Shape) -> str:
    """The kind that a shape is. Raises Incompatible EXPORT_SHAPE that names the first setting that no kind has."""
    learned = shape.positions == "learned"
    kind = "gpt2" if learned else "qwen3" if shape.normed_heads else "qwen2" if shape.biases == "qkv" else "llama"
    wanted: dict[str, tuple[Any, ...]] = {"cap": (0,), "values": (False,)}
    if learned:
        wanted |= {"norm": ("layer",), "normed_heads": (False,), "activation": tuple(WRITTEN), "biases": ("all",),
                   "groups": (shape.heads,), "head": (shape.width / shape.heads,)}
    else:
        even, biases = 2 * (shape.head // 2), ("none", "all") if kind == "qwen3" else ("none", "qkv", "all")
        wanted |= {"positions": ("rotary",), "norm": ("rms",), "activation": ("swiglu",), "biases": biases, "head": (even,)}
        if kind == "llama":
            wanted |= {"heads": tuple(H for H in (shape.heads,) if shape.width % H == 0) or ("a divisor of the width",)}
    for name, values in wanted.items():
        value = getattr(shape, name)
        if value not in values:
            raise Incompatible("EXPORT_SHAPE", f"'{name}' is {value!r}, and {ARCHITECTURES[kind]}, the nearest class that "
                               f"other programs have, needs {' or '.join(map(str, values))}.",
                               "A model of the default settings can be exported; train one.")
    return kind


def config_from(shape: Shape, kind: str) -> dict[str, Any]:
    """What config.json says of a shape."""
    shared = {"architectures": [ARCHITECTURES[kind]], "model_type": kind, "torch_dtype": "float32", "use_cache": True,
              "vocab_size": shape.vocabulary, "tie_word_embeddings": shape.tied}
    if kind == "gpt2":
        return {**shared, "n_positions": shape.length, "n_embd": shape.width, "n_layer": shape.blocks, "n_head": shape.heads,
                "n_inner": shape.inside, "activation_function": WRITTEN[shape.activation], "layer_norm_epsilon": shape.eps,
                "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = {**shared, "max_position_embeddings": shape.length, "hidden_size": shape.width, "num_hidden_layers": shape.blocks,
              "num_attention_heads": shape.heads, "num_key_value_heads": shape.groups, "head_dim": shape.head,
              "intermediate_size": shape.inside, "hidden_act": "silu", "rms_norm_eps": shape.eps, "attention_dropout": 0.0,
              "rope_theta": shape.base, "rope_parameters": {"rope_theta": shape.base, "rope_type": "default"}}
    if kind in ("llama", "qwen3"):
        config["attention_bias"] = shape.biases == "all"
    if kind == "llama":
        return {**config, "mlp_bias": shape.biases == "all"}
    return {**config, "use_sliding_window": False, "max_window_layers": shape.blocks}


def without_biases(shape: Shape, kind: str) -> frozenset[str]:
    """The modules that have biases here and none in that kind."""
    return MLP if kind == "qwen3" and shape.biases == "all" else frozenset()
