"""When a vector acts in a running transformers model: which tokens of each forward it edits.

Within `generate` the prompt's length is known, and a token is edited for what it is: the prompt's last, or one of the
answer. So prompts may be prefilled in chunks, several tokens may be verified in one forward (assisted decoding) and
forwards may repeat the whole sequence (`use_cache=False`). A forward that is called by itself is a prompt, or a step
behind a cache: its last real token counts.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stv_exp.models.edits import last_positions, unhooked
from stv_exp.models.sites import Site


class Moments:
    """The tokens `[B, P]` that the forward under way edits (None: none), for `when` every_step or prompt."""

    def __init__(self, model: Any, when: str) -> None:
        self.model = model
        self.when = when
        self.tokens: Tensor | None = None
        self._prompt: int | None = None  # its length, padding included, within `generate`
        self._forward = inspect.signature(model.forward)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block every forward of the model settles `tokens` first."""
        generate = getattr(self.model, "generate", None)

        def generating(*args: Any, **kwargs: Any) -> Any:
            before, self._prompt = self._prompt, _length(*args, **kwargs)
            try:
                return generate(*args, **kwargs)  # type: ignore[misc]
            finally:
                self._prompt = before

        with ExitStack() as stack:
            if _is_compiled(self.model):
                stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code would run no hook
            if generate is not None:
                stack.callback(self._restored, self.model.__dict__.get("generate"))
                self.model.generate = generating
            stack.callback(self.model.register_forward_pre_hook(self._look, with_kwargs=True).remove)
            yield

    @contextmanager
    def doubted(self, site: Site, reached: Callable[[], int]) -> Iterator[None]:
        """Within the block a forward with tokens to edit raises `StvError` where no module has been reached."""

        def doubt(*_: Any) -> None:
            if self.tokens is not None and not reached():
                raise unhooked(site, 0)

        handle = self.model.register_forward_hook(doubt)
        try:
            yield
        finally:
            handle.remove()

    def _restored(self, own: Any) -> None:
        """Undo what stands in front of the class's `generate`; blocks nest."""
        if own is None:
            del self.model.generate
        else:
            self.model.generate = own

    def _look(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = self._forward.bind_partial(*args, **kwargs).arguments
        arguments |= arguments.pop("kwargs", {})
        ids = arguments.get("input_ids")
        ids = arguments["inputs_embeds"] if ids is None else ids
        past = arguments.get("past_key_values")
        behind = 0 if past is None else int(past.get_seq_length())
        mask = arguments.get("attention_mask")
        self.tokens = self._alone(ids, mask, behind) if self._prompt is None else self._within(ids, behind)

    def _alone(self, ids: Tensor, mask: Any, behind: int) -> Tensor | None:
        if self.when == "prompt" and behind:
            return None
        return last_positions(mask, ids.shape[0], ids.shape[1], ids.device)[:, None]

    def _within(self, ids: Tensor, behind: int) -> Tensor | None:
        """Of the forward's tokens, numbers `behind` and on of the sequence, those from the prompt's last on."""
        assert self._prompt is not None
        first = self._prompt - 1
        last = behind + ids.shape[1] - 1 if self.when == "every_step" else first
        here = range(max(first - behind, 0), min(last - behind + 1, ids.shape[1]))
        return torch.tensor(here, device=ids.device).expand(len(ids), -1) if here else None


def _length(inputs: Tensor | None = None, *_: Any, **kwargs: Any) -> int | None:
    """Tokens of the prompt that `generate` is called with; None where it brings none."""
    found = [kwargs.get("inputs_embeds"), kwargs.get("input_ids"), kwargs.get("inputs"), inputs]
    return next((int(tensor.shape[1]) for tensor in found if isinstance(tensor, Tensor)), None)


def _is_compiled(model: nn.Module) -> bool:
    """Whether the model or a part of it may have been handed to torch.compile, which leaves no trace on the model."""
    return "torch._dynamo.eval_frame" in sys.modules
