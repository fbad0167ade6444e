"""Tokenizers, image processors and chat templates of the tiny checkpoints, as the files that a hub repository has.

No processor is built to write them: several need torchvision, for their videos only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BaseImageProcessor, PreTrainedTokenizerFast, Qwen2Tokenizer

from stv_exp.testbed.curriculum import vocabulary

# What a test may write around the drawn tasks' questions and labels.
WORDS = """Q: A: Question: Answer: Image: User: Assistant: USER: ASSISTANT: user assistant model system is the a an
one two three four five six seven eight cat dog bird fish big tiny left right of in on and or not yes no"""


@dataclass(frozen=True)
class Language:
    """A family's special tokens and its way to write a chat."""

    template: str | None = None
    special: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)  # special tokens that the processor asks for by name
    bos: str | None = None  # written before every text, as LLaMA's and Gemma's tokenizers do
    eos: str = "</s>"
    pad: str = "<pad>"

    @property
    def own(self) -> list[str]:
        return [t for t in (self.pad, "<unk>", self.bos, self.eos, *self.special, *self.named.values()) if t]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token a word; a newline is a token, a space is none."""
        words = dict.fromkeys([*self.own, "\n", *WORDS.split(), *vocabulary()])
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\n"), "isolated"), pre_tokenizers.Split(" ", "removed")]
        )
        tokenizer.decoder = decoders.Fuse()
        if self.bos:
            first = [(self.bos, tokenizer.token_to_id(self.bos))]
            tokenizer.post_processor = processors.TemplateProcessing(single=f"{self.bos} $A", special_tokens=first)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token=self.pad,
            unk_token="<unk>",
            bos_token=self.bos,
            eos_token=self.eos,
            padding_side="left",
            extra_special_tokens=list(self.special),
            model_specific_special_tokens=dict(self.named),
            chat_template=self.template,
        )


class Bytes(Language):
    """One token a byte, spaces too: `AutoTokenizer` reads every Qwen2 folder as Qwen2's own byte pairs."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        symbols = dict.fromkeys([*self.own, *sorted(pre_tokenizers.ByteLevel.alphabet())])
        return Qwen2Tokenizer(
            vocab={symbol: i for i, symbol in enumerate(symbols)},
            merges=[],
            unk_token="<unk>",
            pad_token=self.pad,
            eos_token=self.eos,
            padding_side="left",
            extra_special_tokens=list(self.special),
            chat_template=self.template,
        )


def chat(opening: str, closing: str, answer: str, image: str = "") -> str:
    """A template over contents that are a string or a list of images and texts."""
    return (
        "{% for message in messages %}"
        + opening
        + "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        + "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        + image
        + "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        + closing
        + "{% endfor %}{% if add_generation_prompt %}"
        + answer
        + "{% endif %}"
    )


def chatml(image: str = "") -> str:
    """Qwen's turns."""
    return chat("<|im_start|>{{ message['role'] }}\n", "<|im_end|>\n", "<|im_start|>assistant\n", image)


def turns(image: str = "") -> str:
    """Gemma's turns; as Gemma's own, the template writes the first token that the tokenizer writes too."""
    role = "{{ 'model' if message['role'] == 'assistant' else message['role'] }}"
    return "{{ bos_token }}" + chat(f"<start_of_turn>{role}\n", "<end_of_turn>\n", "<start_of_turn>model\n", image)


def plain(image: str = "", closing: str = "<end_of_utterance>\n") -> str:
    """The Idefics models' turns."""
    return chat("{{ message['role'] | capitalize }}: ", closing, "Assistant:", image)


def write_processor(
    folder: Path,
    processor_class: str,
    language: Language,
    images: BaseImageProcessor,
    video_class: str | None = None,
    **arguments: object,
) -> None:
    """Tokenizer, template and configurations; `arguments` are the processor's own."""
    language.tokenizer().save_pretrained(folder)
    images.save_pretrained(folder)
    processor = {"processor_class": processor_class, **arguments}
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=2))
    if video_class:
        video = {"video_processor_type": video_class, "processor_class": processor_class}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2))
