"""Scores many insertions into one prompt: the log-likelihood of the answer under each.

Three ways, fastest first, with equal results:
- tree: S candidates are S branches of one sequence under a tree mask, each seeing the shared prefix and itself, all
  at the same position; a pre-hook writes candidate s's vectors at its own tokens. No copy, weights read once.
- repeat: S copies of the shared prefix, for models that take no mask of ours or have layers with a state.
- full: a whole forward a candidate, for models (often remote code) whose cache is not transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stv_exp.data.prompts import Prompt
from stv_exp.errors import StvError
from stv_exp.models.answers import extended
from stv_exp.models.backbone import Backbone
from stv_exp.models.branches import shared_layers, shared_states, started_above
from stv_exp.models.caches import is_recurrent
from stv_exp.models.edits import Insertion, inserted, only_logits
from stv_exp.models.prefix import Prefix, join

Way = Callable[..., Tensor]  # of a backbone, prefixes, answers, an insertion and when it applies


def tree(
    backbone: Backbone,
    prefixes: Sequence[Prefix],
    answers: Sequence[Tensor],
    insertion: Insertion,
    when: str,
    late: bool = False,
) -> Tensor:
    """Score as branches of one sequence a query, from the first edited layer on if `late`; see `Scorer.score`."""
    s, n = insertion.values.shape[1], max(map(len, answers))
    targets = _targets(answers, n)
    edited = 1 if when == "prompt" else n
    tokens = (torch.arange(s)[:, None] * n + torch.arange(edited)).flatten().to(backbone.device)
    branch, positions = tree_inputs(backbone, prefixes, answers, s)
    with (
        _above_what_is_shared(backbone, prefixes, answers, insertion) if late else nullcontext(),
        inserted(backbone.site(insertion.site), _repeat(insertion, edited), lambda: tokens.expand(len(prefixes), -1)),
    ):
        logits = _logits(backbone, (targets >= 0).repeat(1, s), branch, positions, join(prefixes))
    return _spread(logits, targets[:, None].expand(-1, s, -1))


def unedited(backbone: Backbone, prefixes: Sequence[Prefix], answers: Sequence[Tensor]) -> None:
    """Run one branch a query with nothing inserted, for what passes on the way."""
    branch, positions = tree_inputs(backbone, prefixes, answers, 1)
    with only_logits(backbone.model, torch.zeros_like(branch["input_ids"], dtype=torch.bool)):
        backbone.forward(branch, position_ids=positions, past_key_values=join(prefixes), use_cache=True)
    backbone.leave_out(branch["input_ids"].numel() - sum(map(len, answers)))


@contextmanager
def _above_what_is_shared(
    backbone: Backbone, prefixes: Sequence[Prefix], answers: Sequence[Tensor], insertion: Insertion
) -> Iterator[None]:
    """Forwards of S branches start where these first differ."""
    if not (layers := shared_layers(insertion)):
        yield
        return
    states = shared_states(backbone, prefixes, answers, layers, partial(unedited, backbone))
    with started_above(backbone, layers, states.repeat(1, insertion.values.shape[1], 1)):
        yield


def tree_inputs(
    backbone: Backbone, prefixes: Sequence[Prefix], answers: Sequence[Tensor], s: int
) -> tuple[dict[str, Any], Tensor]:
    """Tokens `[Q, S * N]` and masks of S branches a query, and their positions."""
    if is_recurrent(backbone.model.config):
        raise StvError("Branches of one sequence would pass their states on to each other; repeat the prefix.")
    n = max(map(len, answers))
    ids = _branch(prefixes, _targets(answers, n)).repeat(1, s)
    positions = backbone.family.branch_positions(_positions(prefixes, n, backbone.device).repeat(1, s))
    masks = _tree_masks(backbone, prefixes, s, n)
    return {"input_ids": ids, "attention_mask": masks, **_seen(prefixes, s * n)}, positions


def repeat(
    backbone: Backbone, prefixes: Sequence[Prefix], answers: Sequence[Tensor], insertion: Insertion, when: str
) -> Tensor:
    """Score as rows of one batch, each with its copy of the prefix; see `scorer.Scorer.score`."""
    s, n, device = insertion.values.shape[1], max(map(len, answers)), backbone.device
    targets = _targets(answers, n)
    wanted = targets[:, None].expand(-1, s, -1)
    longest = max(map(len, prefixes))
    padding = torch.tensor([[longest - len(p)] for p in prefixes], device=device)
    real = torch.arange(longest + n, device=device) >= padding
    rows = partial(torch.repeat_interleave, repeats=s, dim=0)
    branch = {"input_ids": rows(_branch(prefixes, targets)), "attention_mask": rows(real.long())}
    branch |= {name: rows(value) for name, value in _seen(prefixes, n).items()}
    positions = backbone.family.branch_positions(rows(_positions(prefixes, n, device)))
    tokens = torch.arange(1 if when == "prompt" else n, device=device).expand(len(prefixes) * s, -1)
    with inserted(backbone.site(insertion.site), _as_rows(insertion, len(prefixes)), lambda: tokens):
        logits = _logits(backbone, (wanted >= 0).flatten(0, 1), branch, positions, join(prefixes, s))
    return _spread(logits, wanted)


WAYS: dict[str, Way] = {"tree": tree, "repeat": repeat}


def full(
    backbone: Backbone, prompts: Sequence[Prompt], answers: Sequence[Tensor], insertion: Insertion, when: str
) -> Tensor:
    """Score by whole forwards of prompt and answer, S rows a query; see `scorer.Scorer.score`."""
    s, n = insertion.values.shape[1], max(map(len, answers))
    targets = _targets(answers, n)
    scores = torch.zeros(len(prompts), s, n, device=backbone.device)
    for q, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        batch = extended(backbone.encode([prompt] * s), [answer[:-1]] * s)
        last = batch["input_ids"].shape[1] - len(answer)
        tokens = last + torch.arange(1 if when == "prompt" else len(answer), device=backbone.device).expand(s, -1)
        part = _as_rows(insertion.at_query(q), 1)
        with inserted(backbone.site(insertion.site), part, lambda tokens=tokens: tokens):  # type: ignore[misc]
            logits = backbone.forward(batch, position_ids=backbone.family.positions(batch), use_cache=False).logits
        wanted = targets[q, : len(answer)].expand(s, -1)
        scores[q, :, : len(answer)] = _spread(logits[:, last:].flatten(0, 1), wanted)
    return scores


def _seen(prefixes: Sequence[Prefix], tokens: int) -> dict[str, Tensor]:
    """Masks `[Q, T, pictures, tiles]` of what branches see beside text; nothing where no prompt has any."""
    found: dict[str, Tensor] = {}
    for name in {name: None for prefix in prefixes for name in prefix.seen}:
        some = next(prefix.seen[name] for prefix in prefixes if name in prefix.seen)
        rows = [prefix.seen.get(name, some[:0]) for prefix in prefixes]
        found[name] = pad_sequence(rows, batch_first=True)[:, None].expand(-1, tokens, -1, -1)
    return found


def _logits(backbone: Backbone, scored: Tensor, branch: Mapping[str, Any], positions: Tensor, cache: Any) -> Tensor:
    """Vocabulary logits `[n, V]` of the tokens where `scored [B, T]` only."""
    with only_logits(backbone.model, scored):
        logits = backbone.forward(branch, position_ids=positions, past_key_values=cache, use_cache=True).logits
    backbone.leave_out(scored.numel() - int(scored.sum()))
    return logits[scored] if logits.shape[:2] == scored.shape else logits[0]


def _spread(logits: Tensor, wanted: Tensor) -> Tensor:
    """Log-likelihoods in the shape of `wanted [..., N]` from the logits `[n, V]` of its entries that are not -1."""
    scored = wanted >= 0
    logits = logits.float()
    likelihood = logits.gather(-1, wanted[scored][:, None])[:, 0] - logits.logsumexp(-1)
    return torch.zeros(wanted.shape, device=logits.device).masked_scatter_(scored, likelihood)


def _targets(answers: Sequence[Tensor], n: int) -> Tensor:
    """Answer tokens `[Q, N]`, -1 beyond an answer's end."""
    return torch.stack([torch.nn.functional.pad(a, (0, n - len(a)), value=-1) for a in answers])


def _branch(prefixes: Sequence[Prefix], targets: Tensor) -> Tensor:
    """Tokens of one candidate `[Q, N]`: the prompt's last, then the answer's but its last."""
    first = torch.tensor([[p.last_token] for p in prefixes], device=targets.device)
    return torch.cat([first, targets[:, :-1].clamp(min=0)], 1)


def _positions(prefixes: Sequence[Prefix], n: int, device: torch.device) -> Tensor:
    """Positions of one candidate's tokens `[Q, N]`."""
    return torch.tensor([[p.position] for p in prefixes], device=device) + torch.arange(n, device=device)


def _repeat(insertion: Insertion, times: int) -> Insertion:
    """One entry a token `[Q, S * times, K, D]` from one entry a candidate."""
    return insertion if times == 1 else insertion.map(lambda t: t.repeat_interleave(times, dim=1))


def _as_rows(insertion: Insertion, queries: int) -> Insertion:
    """One entry a row of a batch, `[Q * S, 1, K, D]`."""
    return insertion.map(lambda t: t.expand(queries, *t.shape[1:]).flatten(0, 1)[:, None])


def _tree_masks(backbone: Backbone, prefixes: Sequence[Prefix], s: int, n: int) -> Tensor | dict[str, Tensor]:
    """The tree mask, or one by layer type where some layers see a sliding window only."""
    config = backbone.model.config.get_text_config(decoder=True)
    window, kinds = getattr(config, "sliding_window", None), set(getattr(config, "layer_types", None) or ())
    build = partial(_tree_mask, prefixes, s, n, backbone.model.dtype, backbone.device)
    if window is None or kinds == {"full_attention"}:
        return build(None)
    if len(kinds) < 2:
        return build(window)
    return {"full_attention": build(None), "sliding_attention": build(window)}


def _tree_mask(
    prefixes: Sequence[Prefix], s: int, n: int, dtype: torch.dtype, device: torch.device, window: int | None
) -> Tensor:
    """Additive mask `[Q, 1, S * N, P + S * N]`: a token sees its prefix and its own branch up to itself."""
    longest = max(map(len, prefixes))
    lengths = torch.tensor([len(p) for p in prefixes], device=device)
    step = torch.arange(n, device=device).repeat(s)
    branch = torch.arange(s, device=device).repeat_interleave(n)
    before = torch.arange(longest, device=device)
    distance = step[:, None] - step
    to_prefix = longest + step[:, None] - before
    own = (branch[:, None] == branch) & (distance >= 0)
    sees_prefix = (before >= longest - lengths[:, None])[:, None] & (to_prefix < (window or longest + n + 1))
    own = own & (distance < (window or n + 1))
    seen = torch.cat([sees_prefix, own.expand(len(prefixes), -1, -1)], -1)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
