"""Random weights of the tiny checkpoints, wide enough to show in the logits."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.logging import disable_progress_bar

_GATES = ("attn_gate", "mlp_gate", "embedding.gate", "gate_attn", "gate_ffn")
_LATENTS = (
    "latents",
    "class_embedding",
    "cls_token",
    "position_embeddings",
    "positional_embedding",
    "image_newline",
)  # bare parameters


def built(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    disable_progress_bar()  # one file is written at once
    torch.manual_seed(0)
    model = model_class(config)
    initialise(model)
    return model


@torch.no_grad()
def initialise(model: PreTrainedModel) -> None:
    """Wide weights and biases that are not zero: images and the order of words then show in the logits."""
    table = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    table -= {id(model.get_output_embeddings().weight)}  # where they are one, wide ones make a model repeat its input
    transposed = {id(m.weight) for m in model.modules() if isinstance(m, Conv1D)}
    for name, parameter in model.named_parameters():
        if id(parameter) in table or name.endswith(_LATENTS):
            parameter.normal_(0, 0.5)
        elif name.endswith(_GATES):  # closed at first
            parameter.fill_(0.7)
        elif "experts" in name and parameter.dim() == 3:  # [experts, out, in]
            parameter.normal_(0, 0.8 / parameter.shape[-1] ** 0.5)
        elif parameter.dim() >= 2:
            first = id(parameter) in transposed or name.endswith("projection_weight")  # [in, out]
            parameter.normal_(0, 0.8 / (parameter.shape[0] if first else parameter[0].numel()) ** 0.5)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.3)
