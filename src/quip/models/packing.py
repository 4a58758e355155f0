"""Many texts through a causal model for the price of their tokens: nothing is computed twice, and
nothing that no loss looks at.

Texts that answer the same prompt share it: prompt and texts stand in one row, and a mask lets each
text see the prompt and itself. Several such groups share a row, so that hardly any place is
padding. The last token of a text predicts nothing and is left out. What comes back are the hidden
states that predict the texts' tokens, and those alone meet the vocabulary.

`economise` gives this to TRL's trainers, which compute a row for every text, padded, and the logits
of every place of it.
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

Tokens = Sequence[int]

IGNORED = -100
PADDING = -1
TOLERANCE = 1e-3
"""How far a log-probability may be from that of the model's own forward for `packs`."""


class Text(NamedTuple):
    """A text's tokens and those of the prompt before it."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


class Layout(NamedTuple):
    """Rows of tokens, and where the states are that predict each text's tokens.

    ids, positions  (rows, width)
    group, part     (rows, width) which prompt a token belongs to (PADDING: none), and which of its
                    texts (0: the prompt itself)
    scored          for each text, in order, the flat places (row * width + column) of its states
    """

    ids: Tensor
    positions: Tensor
    group: Tensor
    part: Tensor
    scored: list[list[int]]


def laid_out(texts: Sequence[Text], cost: float = 0.0, together: bool = True) -> Layout:
    """The rows for `texts`. `cost`: what a place more of width costs, in places (attention).

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
    rows = shared_out(sizes, cost) if together else [[i] for i in range(len(members))]
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


def shared_out(sizes: Sequence[int], cost: float) -> list[list[int]]:
    """Items of these sizes in rows of nearly equal length, in as many rows as are cheapest: the
    longest first, each into the shortest row."""
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
    """(all tokens of all texts, vocabulary): what predicts the texts' tokens, one text after the
    other. Prompts must not be empty."""
    if packs(model):
        found: Tensor = head(model)(states(model, texts))
        return found
    layout = laid_out(texts, together=False)
    ids, mask = layout.ids.to(model.device), (layout.group != PADDING).long().to(model.device)
    plain = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return at(plain, layout.scored)


def states(model: Any, texts: Sequence[Text]) -> Tensor:
    """(all tokens of all texts, hidden): the last hidden states that predict the texts' tokens."""
    layout = laid_out(texts, attention_cost(model))
    ids, positions, group, part = (tensor.to(model.device) for tensor in layout[:4])
    hidden = backbone(model)(
        input_ids=ids,
        attention_mask=visible(group, part),
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    return at(hidden, layout.scored)


def at(values: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """The values of (rows, width, size) at flat places, one list after the other."""
    flat = torch.tensor(list(itertools.chain.from_iterable(places)), device=values.device)
    return values.flatten(0, 1)[flat]


def visible(group: Tensor, part: Tensor) -> Tensor:
    """(rows, 1, width, width): whether a token (second last axis) sees another (last axis): an
    earlier one, or itself, of its own prompt or of its own text."""
    width = group.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool, device=group.device).tril()
    same_group = group.unsqueeze(2) == group.unsqueeze(1)
    same_part = (part.unsqueeze(1) == 0) | (part.unsqueeze(2) == part.unsqueeze(1))
    return (earlier & same_group & same_part).unsqueeze(1)


def attention_cost(model: Any) -> float:
    """What a place more of width costs a token, in units of the rest of its work: 4 operations for
    each hidden unit of each layer, against 2 for each parameter."""
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
    module: nn.Module = model.get_output_embeddings()
    return module


FITS: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def packs(model: Any) -> bool:
    """Whether packed rows give this model the log-probabilities of its own forward. (Not so with
    attention that counts distances by place, with recurrent layers, or with logits that are scaled
    after the head.) Tried out once for each model."""
    if model not in FITS:
        FITS[model] = tried(model)
    return FITS[model]


@torch.no_grad()
def tried(model: Any) -> bool:
    """On a prompt with two texts and another with one, in evaluation and without autocast."""
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


def economise(model: Any) -> None:
    """Make `model(..., labels=..., fused_lm_head=True)`, which is how TRL's trainers call a model
    after `trl.trainer.utils.add_fused_lm_head`, compute packed rows and the logits of the labelled
    places only. The answer is the same; other calls, and models that it does not fit, are not
    touched."""
    from trl.trainer.utils import FusedCausalLMOutput

    plain = model.forward
    if getattr(model.config.get_text_config(), "output_router_logits", False) or not packs(model):
        print("train: this student's rows cannot be packed; TRL computes them as they come.")
        return

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = taken_apart(args, kwargs) if kwargs.get("fused_lm_head") else None
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
            log_probs=spread(found, mask),
            label_mask=mask,
            **{name: spread(value, mask) for name, value in more.items()},
        )

    model.forward = types.MethodType(forward, model)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """`values`, one after the other, at the places of `mask`; zero elsewhere."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


KNOWN = {
    "input_ids",
    "attention_mask",
    "labels",
    "use_cache",
    "fused_lm_head",
    "num_items_in_batch",
}


def taken_apart(args: Any, kwargs: dict[str, Any]) -> tuple[list[Text], Tensor] | None:
    """The texts of a padded batch and the mask (n, length - 1) of the places that are scored; None
    for a batch that is not prompts with texts after them, padded on the right."""
    if args or set(kwargs) - KNOWN or not {"input_ids", "attention_mask", "labels"} <= set(kwargs):
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
