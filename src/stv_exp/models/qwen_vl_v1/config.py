"""Settings of Qwen-VL (v1), under the names of the published `config.json`."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from stv_exp.errors import StvError

QUERIES = 256  # of the resampler, and so tokens of a picture; the published file leaves them to this default


@strict
class QWenConfig(PreTrainedConfig):
    """A decoder of `num_attention_heads` heads of `kv_channels`, and the vision tower of the section `visual`.

    `intermediate_size` is that of both halves of the gated MLP together. Up to `seq_length` tokens rotations are plain;
    beyond it their base grows (`use_dynamic_ntk`) and queries are scaled (`use_logn_attn`).
    """

    model_type = "qwen"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    kv_channels: int = 128
    layer_norm_epsilon: float = 1e-6
    initializer_range: float = 0.02
    max_position_embeddings: int = 8192
    seq_length: int = 2048
    rotary_emb_base: float | int = 10000
    rotary_pct: float | int = 1.0
    use_dynamic_ntk: bool = True
    use_logn_attn: bool = True
    use_cache: bool = True
    no_bias: bool = True
    tie_word_embeddings: bool = False
    visual: dict[str, Any] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.rotary_pct != 1:
            raise StvError(
                f"The config has rotary_pct {self.rotary_pct}; only Qwen-VL's own rotary_pct 1 is read here."
            )

    @property
    def image_token_id(self) -> int:
        """`<imgpad>`, in whose places a picture's features stand: the second after `<img>`, behind `</img>`."""
        return int(self.seen["image_start_id"]) + 2

    @property
    def seen(self) -> dict[str, Any]:
        """The section `visual`; raises `StvError` for Qwen (v1) models of text, whose type is `qwen` too."""
        if not self.visual:
            raise StvError(
                "The config has model_type qwen and no section `visual`, so it is Qwen (v1) for text only; "
                "take a Qwen-VL, or Qwen2 and later for text."
            )
        return self.visual

    @property
    def image_tokens(self) -> int:
        """Tokens of one picture."""
        return int(self.seen.get("n_queries", QUERIES))
