"""Language models in and out of the layouts that other programs read.

    folders of Hugging Face    config.json, model.safetensors or shards of it, tokenizer.json       read_folder, write_folder
    GGUF, of llama.cpp         one file of all, by the package `gguf`                               read_gguf, write_gguf
    folders of PEFT            adapter_config.json, adapter_model.safetensors: low-rank adapters    write_adapters

The architectures of both are GPT-2, Llama, Qwen2 and Qwen3, which are points of one `nn.language.Shape`. No code of a folder is
run and nothing is unpickled.
"""

from .adapters import write_adapters
from .folder import read_folder, write_folder
from .gguf import read_gguf, write_gguf
from .imported import Imported

__all__ = ["Imported", "read_folder", "read_gguf", "write_adapters", "write_folder", "write_gguf"]
