"""A frozen model behind a few operations: encode prompts, capture activations, generate; `scoring` scores answers.

What differs between model families is in `families/`; everything above sees tensors and strings.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.feature_extraction_utils import BatchFeature

from stv_exp.data.prompts import IMAGE, Prompt
from stv_exp.errors import StvError
from stv_exp.models.chat import ChatTemplate, Content
from stv_exp.models.edits import captured, last_positions, only_logits
from stv_exp.models.families import family_of
from stv_exp.models.pictures import Pictures
from stv_exp.models.refusals import check_images, refused, too_long
from stv_exp.models.sites import Site, find_site
from stv_exp.task_vector import TaskVector
from stv_exp.trained_edit import TrainedEdit

COUNTED = ("forwards", "tokens", "token_forwards")  # what a backbone counts of its work
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


class Backbone:
    """A frozen model with its processor (a tokenizer for text-only models), in evaluation mode."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        name: str,
        chat: bool = False,
        pattern: str = "",
        chat_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.sees_images = processor is not self.tokenizer
        self.name = name
        self.chat = ChatTemplate(processor, name, chat_arguments or {}) if chat else None
        self._sites = {"head": find_site(model, "head", pattern)}
        self.family = family_of(model)
        if self.sees_images:
            self.family.prepare(processor)
        self.pictures = Pictures(model, processor, self.family)
        model.generation_config = self._decoding(model)
        self.loading: tuple[Any, ...] | None = None  # a function and its arguments that load the same one
        self.forwards = 0
        self.tokens = 0
        self.token_forwards = 0.0  # a token through all layers is 1, a backward pass counts 2
        self.share = 1.0  # of the layers that the coming forwards pass
        self._accepted = inspect.signature(model.forward).parameters
        model.register_forward_pre_hook(self._count, with_kwargs=True)
        if (head := model.get_output_embeddings()) is not None:
            # Generation hands it a slice, for which torch on the CPU would copy the weight once a row.
            head.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))

    def _decoding(self, model: Any) -> GenerationConfig:
        """Special tokens alone: a checkpoint's own penalties, sampling or missing cache would enter each generation."""
        ids = {name: getattr(model.generation_config, name, None) for name in _SPECIAL}
        if self.chat and self.family.chat_stops:
            own = ids["eos_token_id"] if isinstance(ids["eos_token_id"], list) else [ids["eos_token_id"]]
            ids["eos_token_id"] = [*own, *self.tokenizer.convert_tokens_to_ids([*self.family.chat_stops])]
        return GenerationConfig(**ids)

    @property
    def heads(self) -> Site:
        """The attention heads, the site by which a model is known."""
        return self._sites["head"]

    def site(self, name: str) -> Site:
        """A site of this model; raises `StvError` where it has none of that name."""
        if name not in self._sites:
            self._sites[name] = find_site(self.model, name, self.heads.pattern)
        return self._sites[name]

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context(self) -> int | None:
        """Tokens that the model can hold, where its config says."""
        return getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: it loads the model itself. Raises `StvError` where nobody has said how."""
        if self.loading is None:
            raise StvError(
                f"{self.name} was not loaded by load_backbone, so no other process can load it: set trainer.devices=1."
            )
        return self.loading

    def _count(self, module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        own = mask[:, -ids.shape[1] :] if isinstance(mask, Tensor) and mask.dim() == 2 else torch.ones_like(ids)
        tokens = int(own.sum())
        self.forwards += 1
        self.tokens += ids.numel()
        self.token_forwards += tokens * self.share  # padding left out: it depends on what is batched with what

    def leave_out(self, padding: int) -> None:
        """Take back so many tokens of the last forward, whose mask does not show that they are padding."""
        self.token_forwards -= padding * self.share

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Within the block the model's work is not counted."""
        before = {name: getattr(self, name) for name in COUNTED}
        try:
            yield
        finally:
            vars(self).update(before)

    def forward(self, batch: Mapping[str, Any], **options: Any) -> Any:
        """Run the model with those `options` that it knows (remote code lacks some)."""
        known = {k: v for k, v in options.items() if k in self._accepted or "kwargs" in self._accepted}
        return self.model(**{**batch, **known})

    def encode(self, prompts: Sequence[Prompt], room: int = 0) -> BatchFeature:
        """Left-padded model inputs of a batch of prompts that leave `room` for new tokens.

        A picture's features stand for its pixels where the model takes them. Raises `StvError` where images and
        placeholders differ in number or the model's context is too short.
        """
        images = [prompt.images for prompt in prompts]
        batch = self._fitting(prompts, images, room)
        if not any(images) or not self.pictures.shareable:
            return batch
        return BatchFeature(self.pictures.instead(batch, [*chain(*images)]))

    def prepare(self, prompts: Sequence[Prompt], room: int = 0) -> BatchFeature:
        """The same with pixels: what a plain script hands the model."""
        return self._fitting(prompts, [prompt.images for prompt in prompts], room)

    def _fitting(self, prompts: Sequence[Prompt], images: Sequence[list[Image.Image]], room: int) -> BatchFeature:
        batch = self._inputs(prompts, images)
        lengths = batch["attention_mask"].sum(1)
        if self.context is not None and lengths.max().item() + room > self.context:
            longest = prompts[int(lengths.argmax())]
            raise StvError(too_long(self.name, longest, lambda p: self.count_tokens([p]), room, self.context))
        return batch.to(self.device)

    def count_tokens(self, prompts: Sequence[Prompt]) -> int:
        """Tokens of prompts, padding left out."""
        return sum(int(self._inputs([prompt], [prompt.images])["attention_mask"].sum()) for prompt in prompts)

    def _inputs(self, prompts: Sequence[Prompt], images: Sequence[list[Image.Image]]) -> BatchFeature:
        texts = [self.render(p) for p in prompts]
        for prompt, found in zip(prompts, images, strict=True):
            check_images(self.name, self.sees_images, prompt, len(found))
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
        options["add_special_tokens"] = not (self._begun(texts[0]) or self.family.begins)
        if any(images):
            options |= {"images": images, **self.family.image_options}
        try:
            return self.processor(text=texts, **options)
        except Exception as error:  # whatever a family's own code runs into
            for prompt, own in zip(prompts, images, strict=True) if len(prompts) > 1 else ():
                self._inputs([prompt], [own])  # raises at the one that is refused also alone
            raise StvError(refused(self.name, self.processor, prompts, error)) from error

    def _begun(self, text: str) -> bool:
        """Whether `text` has its own first token, as some chat templates write it."""
        return bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)

    def render(self, prompt: Prompt) -> str:
        """The prompt as the family's processor reads it: a conversation where `chat`, else interleaved text."""
        if not self.chat:
            return prompt.text.replace(IMAGE, self.family.image)
        turns = [(self._content(asked), self._content(answer)) for asked, answer in prompt.turns]
        return self.chat.write(turns)

    def _content(self, text: str) -> Content:
        if not self.sees_images:
            return text
        pieces = [{"type": "text", "text": piece} for piece in text.split(IMAGE)]
        content = [part for piece in pieces for part in ({"type": "image"}, piece)][1:]
        return [part for part in content if part.get("text") != ""]

    def encode_answer(self, prompt: Prompt, ended: bool = False) -> Tensor:
        """Token ids `[N]` of the query's first answer as it follows its prompt, with what ends it if `ended`.

        Tokenised behind the prompt where that leaves the prompt's tokens as they are: SentencePiece would else
        start the answer with a space of its own.
        """
        template = prompt.template
        answer = prompt.query.answers[0] if self.chat else template.answer.format(answer=prompt.query.answers[0])
        newline = ended and not self.chat and template.demonstration.rpartition("{answer}")[2].startswith("\n")
        before, text = self.render(prompt), answer + "\n" * newline
        alone, base, both = (
            self.tokenizer(part, add_special_tokens=False).input_ids for part in (text, before, before + text)
        )
        ids = both[len(base) :] if both[: len(base)] == base and len(both) > len(base) else alone
        if not ids:
            raise StvError(f"The answer {answer!r} of query {prompt.query.id} has no tokens; give it a text.")
        return torch.tensor(ids + self._stop * (ended and not newline), device=self.device)

    @cached_property
    def _stop(self) -> list[int]:
        """The token at which generation ends, of several the one that a chat writes; none where there is none."""
        stops = self._stops()
        behind = self.chat.behind_an_answer(self._content) if self.chat else ""
        written = self.tokenizer(behind, add_special_tokens=False).input_ids
        return [token for token in written if token in stops][:1] or stops[-1:]

    def _stops(self) -> list[int]:
        known = self.model.generation_config.eos_token_id
        return known if isinstance(known, list) else [] if known is None else [known]

    @torch.inference_mode()
    def capture(self, batch: BatchFeature, site: str = "head") -> Tensor:
        """Activations at each prompt's last token, on the CPU in the model's own dtype.

        `[B, L, H, D]` at heads, `[B, L, D]` at the other sites.
        """
        found: dict[int, Tensor] = {}
        for rows, part in self.family.parts(batch):
            found |= zip(rows, self._capture(part, site), strict=True)
        return torch.stack([found[row] for row in range(len(found))])

    def _capture(self, batch: Mapping[str, Any], site: str) -> Tensor:
        mask = batch["attention_mask"]
        last = last_positions(mask, mask.shape[0], mask.shape[1], mask.device)
        with (
            captured(self.site(site), last) as activations,
            only_logits(self.model, torch.zeros_like(mask, dtype=torch.bool)),
        ):
            self.forward(batch, position_ids=self.family.positions(batch), use_cache=False)
        return torch.stack([a.cpu() for a in activations], dim=1)

    @torch.inference_mode()
    def generate(
        self, batch: BatchFeature, max_new_tokens: int, vector: TaskVector | TrainedEdit | None = None
    ) -> list[str]:
        """Greedy continuations of a batch, the first line of each that is not empty, with `vector` inserted."""
        texts: dict[int, str] = {}
        for rows, part in self.family.parts(batch):
            with vector.inserted(self.model) if vector else nullcontext():
                ids = self.model.generate(**part, max_new_tokens=max_new_tokens, do_sample=False)
            new = ids[:, part["input_ids"].shape[1] :]
            self.leave_out(self._behind_the_end(new))
            texts |= zip(rows, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True)
        return [texts[row].strip().split("\n")[0].strip() for row in range(len(texts))]

    def _behind_the_end(self, new: Tensor) -> int:
        """Tokens that rows of `new [B, N]` went on being fed once they had ended, until the longest one had."""
        stops = torch.tensor(self._stops(), device=new.device)
        ended = torch.isin(new, stops).int().cumsum(1).bool()
        return int(ended[:, :-1].sum())
