"""A decoder as remote code may be: a fused attention input, a `c_proj` as output, attention of its own.

It knows padding masks `[B, T]` only and has no `logits_to_keep`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_remote import RemoteConfig


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class RemoteAttention(nn.Module):
    def __init__(self, config: RemoteConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.kv_channels
        width = config.kv_channels * config.num_attention_heads
        self.c_attn = nn.Linear(config.hidden_size, 3 * width)
        self.c_proj = nn.Linear(width, config.hidden_size, bias=not config.no_bias)

    def forward(self, x: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor], cache: Cache | None) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1)
        )
        query, key = rotate(query, *rotation), rotate(key, *rotation)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        weights = (query @ key.transpose(-1, -2) / self.head_dim**0.5 + mask).softmax(-1)
        return self.c_proj((weights @ value).transpose(1, 2).flatten(2))


class RemoteMLP(nn.Module):
    """`w1` is gated by `w2`; its output projection is a `c_proj` too."""

    def __init__(self, config: RemoteConfig) -> None:
        super().__init__()
        inner = config.intermediate_size // 2
        self.w1 = nn.Linear(config.hidden_size, inner, bias=not config.no_bias)
        self.w2 = nn.Linear(config.hidden_size, inner, bias=not config.no_bias)
        self.c_proj = nn.Linear(inner, config.hidden_size, bias=not config.no_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.w1(x) * nn.functional.silu(self.w2(x)))


class RemoteBlock(nn.Module):
    def __init__(self, config: RemoteConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = RemoteAttention(config, layer)
        self.ln_2 = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = RemoteMLP(config)

    def forward(self, x: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor], cache: Cache | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask, rotation, cache)
        return x + self.mlp(self.ln_2(x))


class RemotePreTrainedModel(PreTrainedModel):
    config_class = RemoteConfig
    base_model_prefix = "transformer"
    _no_split_modules = ["RemoteBlock"]  # noqa: RUF012


class RemoteModel(RemotePreTrainedModel):
    def __init__(self, config: RemoteConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.h = nn.ModuleList([RemoteBlock(config, i) for i in range(config.num_hidden_layers)])
        self.ln_f = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.wte = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPast | tuple[Tensor, ...]:
        x = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        if position_ids is None:  # rotations are relative: padding on the left shifts all of a row's and does no harm
            position_ids = torch.arange(past, past + x.shape[1], device=x.device)[None]
        mask = additive_mask(attention_mask, x, past)
        rotation = rotations(position_ids, self.config.kv_channels, self.config.rotary_emb_base, x.dtype)
        for block in self.h:
            x = block(x, mask, rotation, past_key_values)
        output = BaseModelOutputWithPast(last_hidden_state=self.ln_f(x), past_key_values=past_key_values)
        return output if return_dict is not False else output.to_tuple()


class RemoteLMHeadModel(RemotePreTrainedModel, GenerationMixin):
    def __init__(self, config: RemoteConfig) -> None:
        super().__init__(config)
        self.transformer = RemoteModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast | tuple[Tensor, ...]:
        use_cache = self.config.use_cache if use_cache is None else use_cache
        hidden = self.transformer(input_ids, past_key_values, attention_mask, position_ids, inputs_embeds, use_cache)
        logits = self.lm_head(hidden.last_hidden_state)
        output = CausalLMOutputWithPast(logits=logits, past_key_values=hidden.past_key_values)
        return output if return_dict is not False else output.to_tuple()


def additive_mask(attention_mask: Tensor | None, x: Tensor, past: int) -> Tensor:
    """Causal and without padding, `[B, 1, T, past + T]`."""
    batch, length = x.shape[:2]
    seen = torch.ones(length, past + length, dtype=torch.bool, device=x.device).tril(past).expand(batch, 1, -1, -1)
    if attention_mask is not None:
        if attention_mask.dim() != 2:
            raise ValueError(f"The remote decoder reads masks [B, T], not one of shape {tuple(attention_mask.shape)}.")
        seen = seen & attention_mask.bool()[:, None, None]
    return torch.zeros(seen.shape, dtype=x.dtype, device=x.device).masked_fill(~seen, torch.finfo(x.dtype).min)


def rotations(position_ids: Tensor, width: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[B, 1, T, width]`."""
    frequencies = base ** -(torch.arange(0, width, 2, device=position_ids.device) / width)
    angles = (position_ids[:, None, :, None] * frequencies).repeat(1, 1, 1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin
