"""Settings of a decoder that transformers does not know."""

from __future__ import annotations

from transformers import PretrainedConfig


class RemoteConfig(PretrainedConfig):
    """A decoder with a fused attention input, `kv_channels` wide heads and no head groups."""

    model_type = "remote_decoder"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        vocab_size: int = 151936,
        hidden_size: int = 4096,
        num_hidden_layers: int = 32,
        num_attention_heads: int = 32,
        kv_channels: int = 128,
        intermediate_size: int = 22016,
        layer_norm_epsilon: float = 1e-6,
        initializer_range: float = 0.02,
        max_position_embeddings: int = 8192,
        seq_length: int = 8192,
        rotary_emb_base: float = 10000.0,
        no_bias: bool = True,
        use_cache: bool = True,
        tie_word_embeddings: bool = False,
        **kwargs: object,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.kv_channels = kv_channels
        self.intermediate_size = intermediate_size
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_range = initializer_range
        self.max_position_embeddings = max_position_embeddings
        self.seq_length = seq_length
        self.rotary_emb_base = rotary_emb_base
        self.no_bias = no_bias
        self.use_cache = use_cache
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
