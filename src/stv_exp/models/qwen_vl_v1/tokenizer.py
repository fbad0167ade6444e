"""Qwen-VL's tokenizer: from `tokenizer.json` where a folder has it, else from the published `qwen.tiktoken`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from stv_exp.errors import StvError
from stv_exp.models.qwen_vl_v1.vocabulary import END, FILE, build_tokenizer, read_ranks

CONTEXT = 8192
# Qwen-VL-Chat's turns. Pictures are numbered through the conversation, as its demonstrations number them.
CHAT = (
    "{% set seen = namespace(pictures=0) %}"
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{% set seen.pictures = seen.pictures + 1 %}"
    "Picture {{ seen.pictures }}: <img></img>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class QWenTokenizer(PreTrainedTokenizerFast):
    """Byte pairs, with `<|endoftext|>` as padding and end; nothing is written before a text."""

    vocab_files_names = {"vocab_file": FILE, "tokenizer_file": "tokenizer.json"}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        defaults = {"eos_token": END, "pad_token": END, "padding_side": "left", "chat_template": CHAT}
        super().__init__(*args, **{"model_max_length": CONTEXT, **defaults, **kwargs})

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Called by `from_pretrained` with the files that it found."""
        ranks, whole = kwargs.pop("vocab_file", None), kwargs.pop("tokenizer_file", None)
        if whole is not None:
            return {**kwargs, "tokenizer_file": whole}
        if ranks is None:
            raise StvError(
                f"A Qwen-VL folder needs {FILE} or tokenizer.json and has neither; fetch {FILE} from its repository."
            )
        return {**kwargs, "tokenizer_object": build_tokenizer(read_ranks(Path(ranks)))}
