"""Qwen-VL's decoder and its head, with the published names of all parameters; attention is looked up by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel, initialization
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.models.llama.modeling_llama import eager_attention_forward
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from stv_exp.models.qwen_vl_v1.config import QWenConfig
from stv_exp.models.qwen_vl_v1.resampler import CrossAttention, Resampler, sines
from stv_exp.models.qwen_vl_v1.rotary import Rotation, rotated, rotation
from stv_exp.models.qwen_vl_v1.vision import VisionTransformer


class QWenRMSNorm(nn.Module):
    """The norm in float32, its weight in the model's dtype."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        exact = x.float()
        exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return exact.to(x.dtype) * self.weight


class QWenAttention(nn.Module):
    """All heads have keys of their own; `c_attn` gives all queries, then all keys, then all values."""

    def __init__(self, config: QWenConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer
        self.head_dim = config.kv_channels
        self.num_key_value_groups = 1
        self.is_causal = True
        width = config.kv_channels * config.num_attention_heads
        self.c_attn = nn.Linear(config.hidden_size, 3 * width)
        self.c_proj = nn.Linear(width, config.hidden_size, bias=not config.no_bias)

    def forward(
        self, x: Tensor, mask: Tensor | None, turn: Rotation, cache: Cache | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        query, key, value = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1)
        )
        cos, sin, scale = turn
        query, key = rotated(query, cos, sin) * scale.to(query.dtype), rotated(key, cos, sin)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        found, weights = attend(self, query, key, value, mask, scaling=self.head_dim**-0.5, dropout=0.0, **options)
        return self.c_proj(found.flatten(2)), weights


class QWenMLP(nn.Module):
    """SwiGLU: `w2` is the gate of `w1`."""

    def __init__(self, config: QWenConfig) -> None:
        super().__init__()
        inner, bias = config.intermediate_size // 2, not config.no_bias
        self.w1 = nn.Linear(config.hidden_size, inner, bias=bias)
        self.w2 = nn.Linear(config.hidden_size, inner, bias=bias)
        self.c_proj = nn.Linear(inner, config.hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.w1(x) * nn.functional.silu(self.w2(x)))


class QWenBlock(nn.Module):
    """One layer, which gives out the residual stream."""

    def __init__(self, config: QWenConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = QWenRMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = QWenAttention(config, layer)
        self.ln_2 = QWenRMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = QWenMLP(config)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, turn: Rotation, cache: Cache | None, **options: Any
    ) -> Tensor:
        x = hidden_states + self.attn(self.ln_1(hidden_states), mask, turn, cache, **options)[0]
        return x + self.mlp(self.ln_2(x))


class QWenPreTrainedModel(PreTrainedModel):
    """What transformers asks of a model's class."""

    config: QWenConfig
    config_class = QWenConfig
    base_model_prefix = "transformer"
    input_modalities = ["image", "text"]  # noqa: RUF012
    _no_split_modules = ["QWenBlock", "VisualAttentionBlock"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": QWenBlock, "attentions": QWenAttention}  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CrossAttention):
            initialization.xavier_uniform_(module.in_proj_weight)
            initialization.zeros_(module.in_proj_bias)
        if isinstance(module, Resampler):
            initialization.copy_(module.pos_embed, sines(*module.pos_embed.shape))
            initialization.trunc_normal_(module.query, std=0.02)
        if isinstance(module, VisionTransformer):
            for parameter in (module.positional_embedding, module.proj):
                initialization.normal_(parameter, std=parameter.shape[1] ** -0.5)


class QWenModel(QWenPreTrainedModel):
    """The decoder, which puts pictures in the places of `<imgpad>`."""

    def __init__(self, config: QWenConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.h = nn.ModuleList([QWenBlock(config, i) for i in range(config.num_hidden_layers)])
        self.ln_f = QWenRMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.visual = VisionTransformer(config.seen, config.image_tokens)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.wte

    def set_input_embeddings(self, value: Any) -> None:
        self.wte = value

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        prompt_length: Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: Mapping[str, BaseModelOutputWithPooling] | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPast:
        """Of tokens `[B, T]` and pictures `[N, 3, S, S]` (or their features) in the order of their places, row by row.

        `prompt_length [B]` is what the rotary base goes by (see `rotary`). Left out, it is the number of tokens up to
        the last one, and with a filled cache up to the first that is new.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        features = self.visual(pixel_values) if pixel_values is not None else None
        if mm_encoder_outputs and (image := mm_encoder_outputs.get("image")):
            features = image.pooler_output
        x = self._embedded(input_ids, inputs_embeds, features)
        if position_ids is None:
            position_ids = _positions(attention_mask, x, past)
        position_ids = position_ids.expand(len(x), -1)
        if prompt_length is None:
            prompt_length = 1 + (position_ids[:, 0] if past else position_ids.amax(1))
        mask = create_causal_mask(self.config, x, attention_mask, past_key_values, position_ids)
        turn = rotation(self.config, position_ids, prompt_length)
        for block in self.h:
            x = block(x, mask, turn, past_key_values, **options)
        return BaseModelOutputWithPast(last_hidden_state=self.ln_f(x), past_key_values=past_key_values)

    def _embedded(self, ids: Tensor | None, embedded: Tensor | None, features: Tensor | None) -> Tensor:
        """Embeddings `[B, T, C]` with pictures' features `[..., C]` in their places; raises where numbers differ."""
        if ids is None or features is None:
            return embedded if embedded is not None else self.wte(ids)
        x, places = self.wte(ids), ids == self.config.image_token_id
        if (found := int(places.sum())) != (needed := features.shape[:-1].numel()):
            raise ValueError(f"{found} places of picture tokens for {needed} features of pictures.")
        return x.masked_scatter(places[..., None], features.to(x))


class QWenLMHeadModel(QWenPreTrainedModel, GenerationMixin):
    """Qwen-VL with its head, which is not tied to the embeddings."""

    def __init__(self, config: QWenConfig) -> None:
        super().__init__(config)
        self.transformer = QWenModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """What the decoder reads of pictures `[N, 3, S, S]`: `pooler_output` `[N, places, C]`."""
        return BaseModelOutputWithPooling(pooler_output=self.transformer.visual(pixel_values))

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: Any) -> None:
        self.lm_head = value

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        prompt_length: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: Mapping[str, BaseModelOutputWithPooling] | None = None,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """See `QWenModel.forward`; logits `[B, T, V]`."""
        found = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            prompt_length=prompt_length,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            **options,
        )
        logits = self.lm_head(slice_logits_to_keep(found.last_hidden_state, logits_to_keep))
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **options)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=found.past_key_values,
            hidden_states=found.hidden_states,
            attentions=found.attentions,
        )

    def _expand_inputs_for_generation(self, *args: Any, **inputs: Any) -> Any:
        """Generation keeps the rotary base of the prompt: its length is told to every step."""
        if inputs.get("prompt_length") is None and inputs.get("position_ids") is not None:
            inputs["prompt_length"] = inputs["position_ids"].amax(-1) + 1
        return super()._expand_inputs_for_generation(*args, **inputs)  # type: ignore[misc]


def _positions(mask: Tensor | None, x: Tensor, past: int) -> Tensor:
    """Places `[B, T]` that count real tokens where the mask says which these are."""
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return (mask.long().cumsum(1) - 1).clamp(min=0)[:, -x.shape[1] :]
    return torch.arange(past, past + x.shape[1], device=x.device)[None]
