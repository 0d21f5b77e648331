"""Batched targets against one request at a time.

The plain way is what published scripts do: for every request and every iteration, a forward of the whole model over all
of the request's texts, logits of the whole vocabulary at every token, and the gradient of one offset. Ours caches what
the offset cannot change (blocks below, tokens before the subject's last one), asks the head only where a prediction is
scored, and optimises many requests in one graph. Another row has our own code with `batch_size=1`: what is left is
what caching alone gives.

All ways make all the passes that editors allow a target (25): nothing stops early, which is checked. Times are per
request; the plain way does a sample of the requests, since all of them would take it very long. Before anything is
timed, all ways are run for a few passes and end at the same losses.

Run it alone: `python -m benchmarks targets`
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.setting import Sizes, make_language_model
from benchmarks.timing import Clock, Row, compare, stopwatch
from lightning_edit.data.world import World, world_requests
from lightning_edit.editors.contexts import DEFAULT_CONTEXTS
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from lightning_edit.targets import Column, TargetOptions, TargetPrompt, optimize_targets

CHECKED = 3  # passes after which all ways are compared


def measure(sizes: Sizes, clock: Clock) -> list[Row]:
    """Compare the plain way with `optimize_targets`.

    Args:
        sizes: How many columns and passes.
        clock: By which clock.
    """
    rows = []
    for shape in sizes.shapes:
        lm, layer = make_language_model(shape, sizes), shape.layers[-1]
        columns = [make_column(request) for request in world_requests(World(), sizes.columns)]
        few = columns[:: len(columns) // sizes.plain_columns][: sizes.plain_columns]
        together = TargetOptions(steps=sizes.target_steps, batch_size=sizes.columns_at_once, stop_loss=0.0)
        alone = replace(together, batch_size=1)
        check(lm, few, layer, together)
        ways = {
            f"{shape.name}, one by one, whole model": stopwatch(
                partial(plain, lm, few, layer, together), clock, len(few)
            ),
            f"{shape.name}, one by one, cached": stopwatch(partial(ours, lm, few, layer, alone), clock, len(few)),
            f"{shape.name}, {len(columns)} in batches of {sizes.columns_at_once}, cached": stopwatch(
                partial(ours, lm, columns, layer, together), clock, len(columns)
            ),
        }
        rows += compare("targets", ways, sizes.target_rounds, aims={[*ways][-1]: 1 / 5})
    return rows


def ours(lm: LanguageModel, columns: Sequence[Column], layer: int, options: TargetOptions) -> Tensor:
    """The last loss of every column (m,), all passes made.

    Args:
        lm: The language model.
        columns: What should be said.
        layer: The block that takes the offset.
        options: How to optimise.
    """
    found = optimize_targets(lm, columns, layer, options)
    assert (found.steps == options.steps).all(), "a column stopped early: the ways no longer do the same work"
    return found.loss


def make_column(request: EditRequest) -> Column:
    """A request as editors ask for it: the bare prompt, the prompt behind five contexts, and a text for the KL term.

    Args:
        request: A request with a subject.
    """
    assert request.subject is not None
    assert request.subject_span is not None
    start, end = request.subject_span
    prompts = [
        TargetPrompt(context + request.prompt, (start + len(context), end + len(context)), request.target)
        for context in ("", *DEFAULT_CONTEXTS)
    ]
    return Column(request.id, prompts, (f"{request.subject} is a", (0, len(request.subject))))


def plain(lm: LanguageModel, columns: Sequence[Column], layer: int, options: TargetOptions) -> Tensor:
    """The last loss of every column (m,), found the plain way.

    Args:
        lm: The language model.
        columns: What should be said.
        layer: The block that takes the offset.
        options: How to optimise.
    """
    with lm.borrow(), torch.enable_grad():
        return torch.tensor([_plain_column(lm, column, layer, options) for column in columns])


def _plain_column(lm: LanguageModel, column: Column, layer: int, options: TargetOptions) -> float:
    """MEMIT's loop (arXiv 2210.07229, section 4.2) for one request; its last text is the one for the KL term."""
    assert column.kl_prompt is not None
    texts = [f"{prompt.text} {prompt.target}" for prompt in column.prompts] + [column.kl_prompt[0]]
    encoded = lm.encode(texts)
    each = torch.arange(len(texts))
    lookup = torch.tensor(lm.subject_positions(texts, [p.span for p in column.prompts] + [column.kl_prompt[1]]))
    scored = torch.zeros(
        encoded.input_ids.shape, dtype=torch.bool, device=lm.device
    )  # (r, t): where the next token is the target's
    for i, prompt in enumerate(column.prompts):
        for j, (_, end) in enumerate(encoded.offsets[i]):
            scored[i, j - 1] |= end > len(prompt.text)  # (r, t): where the next token is the target's
    following = encoded.input_ids.roll(-1, 1)
    offset = torch.zeros(lm.site(layer).width, device=lm.device, requires_grad=True)
    seen: dict[str, Tensor] = {}

    def add(module: object, args: object, output: Tensor) -> Tensor:
        seen.setdefault("start", output[0, lookup[0]].detach())
        return output.index_put((each, lookup), output[each, lookup] + offset)

    optimizer, value = torch.optim.Adam([offset], lr=options.lr), 0.0
    handle = lm.block(layer).register_forward_hook(add)
    for step in range(1, options.steps + 1):
        logits = lm.model(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, use_cache=False).logits
        log_p = logits.log_softmax(-1)  # (r, t, vocabulary)
        right = log_p.gather(2, following[..., None])[..., 0] * scored
        now = log_p[-1, lookup[-1]]
        before = seen.setdefault("before", now.detach())
        loss = -(right[:-1].sum(1) / scored[:-1].sum(1)).mean() + options.kl * (now.exp() * (now - before)).sum()
        loss = loss + options.weight_decay * offset.norm() / seen["start"].norm() ** 2
        value = loss.item()
        assert value >= options.stop_loss, "a column stopped early: the ways no longer do the same work"
        if step == options.steps:
            break
        (offset.grad,) = torch.autograd.grad(loss, [offset])
        optimizer.step()
        with torch.no_grad():
            offset *= (options.clamp * seen["start"].norm() / offset.norm()).clamp(max=1)
    handle.remove()
    return value


def check(lm: LanguageModel, columns: Sequence[Column], layer: int, options: TargetOptions) -> None:
    """See that all ways end at the same losses after a few passes.

    Args:
        lm: The language model.
        columns: What should be said.
        layer: The block that takes the offset.
        options: How to optimise.
    """
    once = replace(options, steps=min(CHECKED, options.steps))
    one, other = plain(lm, columns, layer, once), ours(lm, columns, layer, once)
    torch.testing.assert_close(other.cpu(), one, rtol=0, atol=1e-3)
