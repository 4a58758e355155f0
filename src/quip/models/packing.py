"""Packed rows: many texts through a causal model without padding, shared prompts once.

Texts that answer the same prompt share it: prompt and texts stand in one row, and an attention mask
lets each text see the prompt and itself. Several such groups share a row, so hardly any place is
padding. The last token of a text predicts nothing and is left out. Only the hidden states that
predict the texts' tokens are multiplied with the vocabulary.

`enable_packing` makes TRL's trainers compute packed rows. On their own they compute one padded row
for every text and the logits of all its places.
"""

from __future__ import annotations

import functools
import itertools
import types
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

IGNORED = -100
"""The label of a position that is not part of the text (prompt, padding)."""

PADDING = -1
TOLERANCE = 1e-3
"""The largest difference of a log-probability, in nats, from that of the model's own forward."""


class Text(NamedTuple):
    """The tokens of a text and of the prompt before it."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


class Layout(NamedTuple):
    """Packed rows of tokens, and the places whose states predict each text's tokens.

    ids, positions  (rows, width)
    group, part     (rows, width) the prompt a token belongs to (PADDING: none), and the text of
                    that prompt (0: the prompt itself)
    scored          for each text the flat places (row * width + column) that predict its tokens
    """

    ids: Tensor
    positions: Tensor
    group: Tensor
    part: Tensor
    scored: list[list[int]]


def pack_layout(texts: Sequence[Text], cost: float = 0.0, together: bool = True) -> Layout:
    """The packed rows of `texts`; `cost` as in `attention_cost`.

    Without `together` every text has a row and a prompt of its own.
    """
    groups: dict[Any, list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault(text.prompt if together else number, []).append(number)
    members = list(groups.values())
    sizes = [
        len(texts[group[0]].prompt) + sum(max(0, len(texts[i].tokens) - 1) for i in group)
        for group in members
    ]
    rows = bin_pack(sizes, cost) if together else [[i] for i in range(len(members))]
    width = max(sum(sizes[g] for g in row) for row in rows)
    ids, positions, group_of, part_of = (
        [[fill] * width for _ in rows] for fill in (0, 0, PADDING, 0)
    )
    scored: list[list[int]] = [[] for _ in texts]
    for r, row in enumerate(rows):
        end = 0
        for g in row:
            prompt = texts[members[g][0]].prompt
            parts = [(prompt, 0)] + [(texts[i].tokens[:-1], len(prompt)) for i in members[g]]
            first = end + len(prompt) - 1
            for part, (tokens, start) in enumerate(parts):
                place = slice(end, end + len(tokens))
                ids[r][place] = tokens
                positions[r][place] = range(start, start + len(tokens))
                group_of[r][place] = [g] * len(tokens)
                part_of[r][place] = [part] * len(tokens)
                if part and texts[members[g][part - 1]].tokens:
                    columns = [first, *range(end, end + len(tokens))]
                    scored[members[g][part - 1]] = [r * width + column for column in columns]
                end += len(tokens)
    return Layout(
        torch.tensor(ids),
        torch.tensor(positions),
        torch.tensor(group_of),
        torch.tensor(part_of),
        scored,
    )


def bin_pack(sizes: Sequence[int], cost: float) -> list[list[int]]:
    """Items of these sizes packed into rows: lists of item indices, of nearly equal total size.

    Greedy: the largest item first, each into the shortest row. The number of rows is the one of
    lowest cost, rows * width * (1 + cost * width).
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    best: tuple[float, list[list[int]]] | None = None
    for count in range(1, len(sizes) + 1):
        rows: list[list[int]] = [[] for _ in range(count)]
        lengths = [0] * count
        for item in order:
            shortest = lengths.index(min(lengths))
            rows[shortest].append(item)
            lengths[shortest] += sizes[item]
        width = max(lengths)
        price = count * width * (1 + cost * width)
        if best is None or price < best[0]:
            best = price, rows
    assert best
    return best[1]


def logits(model: Any, texts: Sequence[Text]) -> Tensor:
    """The logits that predict the texts' tokens, one text after the other: (tokens of all texts,
    vocabulary). Prompts must not be empty."""
    if supports_packing(model):
        found: Tensor = head(model)(states(model, texts))
        return found
    layout = pack_layout(texts, together=False)
    ids, mask = layout.ids.to(model.device), (layout.group != PADDING).long().to(model.device)
    plain = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return select_places(plain, layout.scored)


def states(model: Any, texts: Sequence[Text]) -> Tensor:
    """The last hidden states that predict the texts' tokens: (tokens of all texts, hidden)."""
    layout = pack_layout(texts, attention_cost(model))
    ids, positions, group, part = (tensor.to(model.device) for tensor in layout[:4])
    hidden = backbone(model)(
        input_ids=ids,
        attention_mask=packed_attention_mask(group, part),
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    return select_places(hidden, layout.scored)


def select_places(values: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """The values (rows, width, size) at flat places, one list after the other: (places, size)."""
    flat = torch.tensor(list(itertools.chain.from_iterable(places)), device=values.device)
    return values.flatten(0, 1)[flat]


def packed_attention_mask(group: Tensor, part: Tensor) -> Tensor:
    """The attention mask, (rows, 1, width, width): true where a token (second last axis) sees
    another (last axis). It sees itself and earlier tokens of its own prompt and its own text."""
    width = group.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool, device=group.device).tril()
    same_group = group.unsqueeze(2) == group.unsqueeze(1)
    same_part = (part.unsqueeze(1) == 0) | (part.unsqueeze(2) == part.unsqueeze(1))
    return (earlier & same_group & same_part).unsqueeze(1)


def attention_cost(model: Any) -> float:
    """The cost of attention to one more place of width, for a token, relative to its other work: 4
    operations for each hidden unit of each layer, against 2 for each parameter."""
    config = model.config.get_text_config()
    inner = backbone(model)
    parameters = (
        sum(p.numel() for p in inner.parameters()) - inner.get_input_embeddings().weight.numel()
    )
    return 2 * config.num_hidden_layers * config.hidden_size / max(1, parameters)


def backbone(model: Any) -> Any:
    """The model below its head, with its adapters if there are any."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return model.base_model


def head(model: Any) -> nn.Module:
    """The layer that turns hidden states into logits."""
    module: nn.Module = model.get_output_embeddings()
    return module


PACKING_SUPPORT: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def supports_packing(model: Any) -> bool:
    """Whether packed rows give this model the log-probabilities of its own forward; checked once
    for each model.

    They do not with attention that counts distances by place, with recurrent layers, or with logits
    that are scaled after the head.
    """
    if model not in PACKING_SUPPORT:
        PACKING_SUPPORT[model] = check_packing(model)
    return PACKING_SUPPORT[model]


@torch.no_grad()
def check_packing(model: Any) -> bool:
    """`supports_packing`, checked on a prompt with two texts and another with one, in evaluation
    mode and without autocast."""
    if getattr(model.config, "_attn_implementation", "") != "sdpa":
        return False
    vocabulary = model.config.get_text_config().vocab_size
    numbers = [(7 * i * i + 11 * i + 5) % vocabulary for i in range(18)]
    first, second = tuple(numbers[:4]), tuple(numbers[4:9])
    texts = [
        Text(first, tuple(numbers[9:12])),
        Text(second, tuple(numbers[12:14])),
        Text(first, tuple(numbers[14:18])),
    ]
    was = model.training
    model.eval()
    try:
        with torch.autocast(model.device.type, enabled=False):
            packed = head(model)(states(model, texts)).log_softmax(-1)
            plain = []
            for text in texts:
                ids = torch.tensor([[*text.prompt, *text.tokens]], device=model.device)
                found = model(input_ids=ids, use_cache=False).logits[0, len(text.prompt) - 1 : -1]
                plain.append(found.log_softmax(-1))
        return bool((packed - torch.cat(plain)).abs().max() < TOLERANCE)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return False
    finally:
        model.train(was)


def enable_packing(model: Any) -> None:
    """Make `model(..., labels=..., fused_lm_head=True)` compute packed rows, and logits at the
    labelled places only.

    TRL's trainers call a model this way after `trl.trainer.utils.add_fused_lm_head`. The results
    are the same. Other calls, and models that do not support packing, are unchanged.
    """
    from trl.trainer.utils import FusedCausalLMOutput

    plain = model.forward
    if getattr(
        model.config.get_text_config(), "output_router_logits", False
    ) or not supports_packing(model):
        print("train: this student does not support packed rows; TRL computes padded ones.")
        return

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = split_batch(args, kwargs) if kwargs.get("fused_lm_head") else None
        if batch is None:
            return plain(*args, **kwargs)
        labels = kwargs["labels"]
        texts, mask = batch
        scores = head(self)(states(self, texts)).float()
        targets = labels[:, 1:][mask]
        logps = scores.log_softmax(-1)
        found = logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            more = {
                "entropy": -(logps.exp() * logps).sum(-1),
                "mean_logits": scores.mean(-1),
                "is_top1": scores.argmax(-1) == targets,
            }
        counted = kwargs.get("num_items_in_batch")
        return FusedCausalLMOutput(
            loss=-found.sum() / (len(found) if counted is None else counted),
            log_probs=scatter_to_mask(found, mask),
            label_mask=mask,
            **{name: scatter_to_mask(value, mask) for name, value in more.items()},
        )

    model.forward = types.MethodType(forward, model)


def scatter_to_mask(values: Tensor, mask: Tensor) -> Tensor:
    """`values` (tokens,) at the true places of `mask` in order, zero elsewhere: mask's shape."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


KNOWN_ARGUMENTS = {
    "input_ids",
    "attention_mask",
    "labels",
    "use_cache",
    "fused_lm_head",
    "num_items_in_batch",
}


def split_batch(args: Any, kwargs: dict[str, Any]) -> tuple[list[Text], Tensor] | None:
    """The texts of TRL's padded batch, and the mask (n, length - 1) of the scored places.

    None when the batch does not consist of prompts with texts after them, padded on the right.
    """
    if (
        args
        or set(kwargs) - KNOWN_ARGUMENTS
        or not {"input_ids", "attention_mask", "labels"} <= set(kwargs)
    ):
        return None
    lengths = kwargs["attention_mask"].sum(-1).tolist()
    labels = kwargs["labels"]
    mask = labels[:, 1:] != IGNORED
    scored = mask.sum(-1).tolist()
    texts = []
    for ids, length, count in zip(kwargs["input_ids"].tolist(), lengths, scored, strict=True):
        texts.append(Text(tuple(ids[: length - count]), tuple(ids[length - count : length])))
    expected = torch.zeros_like(mask)
    for row, (length, count) in enumerate(zip(lengths, scored, strict=True)):
        expected[row, length - count - 1 : length - 1] = True
    alike = torch.equal(mask, expected) and all(text.prompt for text in texts)
    return (texts, mask) if alike and any(scored) else None
