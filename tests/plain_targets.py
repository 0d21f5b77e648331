"""Targets found by a plain loop: one column, one row at a time, the whole model every time."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets import Column, TargetOptions, TargetPrompt, Targets

FACTS = [
    ("Ann Smith", "The mother tongue of Ann Smith is", "French"),
    ("Bob", "Bob works for", "Apple and more"),
    ("Zürich lake", "In the north, Zürich lake is in", "Peru"),
    ("the city", "He was born in the city", "of Rome"),
]
EASY = [
    ("Ann Smith", "The mother of Ann Smith", "city"),
    ("Zürich lake", "Zürich lake", "language"),
    ("Ida", "is Ida", "known"),
]


def loud(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with a steeper head: a random one is too timid to be convinced of anything."""
    model.get_output_embeddings().weight.data.mul_(5)
    return model


def columns() -> list[Column]:
    """Four columns behind two contexts each; the last has a second request about the same subject."""
    made = []
    for subject, prompt, target in FACTS:
        start = prompt.index(subject)
        prompts = [
            TargetPrompt(context + text, (start + len(context), start + len(context) + len(subject)), answer)
            for text, answer in ((prompt, target), (prompt[: start + len(subject)] + ", known for", "a river"))
            for context in ("", "The city is known. ", "He was ")
        ]
        kept = prompts if subject == "the city" else prompts[:3]
        made.append(Column(subject, kept, (f"{subject} is a", (0, len(subject)))))
    return made


def easy_columns() -> list[Column]:
    """Columns that a random model can be brought to obey: one token, right behind the subject."""
    made = []
    for subject, prompt, target in EASY:
        start = prompt.index(subject)
        span = (start, start + len(subject))
        made.append(Column(subject, [TargetPrompt(prompt, span, target)], (f"{subject} is a", (0, len(subject)))))
    return made


def plain_loop(lm: LanguageModel, column: Column, layer: int, options: TargetOptions) -> tuple[Tensor, float, int]:
    """One column, one row at a time, the whole model every time, torch's Adam."""
    at_projection = lm.site(layer).norm_after
    place = lm.projection(layer) if at_projection else lm.block(layer)
    inputs = lm.model.get_input_embeddings()
    delta = torch.zeros(lm.site(layer).width, dtype=inputs.weight.dtype, requires_grad=True)
    seen = {}

    def scores(text: str, span: tuple[int, int]) -> Tensor:
        position = lm.subject_positions([text], [span])[0]

        def add(module: object, args: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            flat = hidden.view(-1, hidden.shape[-1])
            seen.setdefault("start", flat[position].detach().clone())
            flat[position] = flat[position] + delta
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = place.register_forward_hook(add)
        try:
            return lm.model(input_ids=lm.encode([text]).input_ids).logits[0].log_softmax(-1)
        finally:
            handle.remove()

    def likelihood(prompt: TargetPrompt) -> Tensor:
        text = f"{prompt.text} {prompt.target}"
        encoded = lm.encode([text])
        new = [i for i, (_, end) in enumerate(encoded.offsets[0]) if end > len(prompt.text)]
        log_p = scores(text, prompt.span)
        return torch.stack([-log_p[i - 1, encoded.input_ids[0, i]] for i in new]).mean()

    def said(text: str, span: tuple[int, int], position: int) -> Tensor:
        return scores(text, span)[position]

    text, span = column.kl_prompt or ("", (0, 0))
    bare = column.prompts[0]
    edited = said(bare.text, bare.span, -1).argmax()
    preserved = [(t, s) for t, s in column.preserved if said(t, s, -1).argmax() != edited]
    firm = [said(t, s, -1).detach() for t, s in preserved]
    optimizer = torch.optim.Adam([delta], lr=options.lr)
    before = None
    for step in range(1, options.steps + 1):
        loss = torch.stack([likelihood(prompt) for prompt in column.prompts]).mean()
        now = scores(text, span)[lm.subject_positions([text], [span])[0]]
        before = now.detach() if before is None else before
        loss = loss + options.kl * (now.exp() * (now - before)).sum()
        for (kept, where), was in zip(preserved, firm, strict=True):
            now = said(kept, where, -1)
            loss = loss + options.preserve * (now.exp() * (now - was)).sum() / len(preserved)
        loss = loss + options.weight_decay * delta.norm() / seen["start"].norm() ** 2
        if loss < options.stop_loss or step == options.steps:
            break
        (delta.grad,) = torch.autograd.grad(loss, [delta])
        optimizer.step()
        with torch.no_grad():
            bound = options.clamp * seen["start"].norm()
            if delta.norm() > bound:
                delta.mul_(bound / delta.norm())
    return seen["start"] + delta.detach(), loss.item(), step


def check_against_plain_loop(
    lm: LanguageModel, columns: list[Column], layer: int, options: TargetOptions, found: Targets, tolerance: float
) -> None:
    """The targets that were found for columns are those of the plain loop, with its losses, after as many steps."""
    with lm.borrow(), torch.enable_grad():
        for i, column in enumerate(columns):
            z, loss, steps = plain_loop(lm, column, layer, options)
            torch.testing.assert_close(found.z[i], z, rtol=0, atol=tolerance)
            assert float(found.loss[i]) == pytest.approx(loss, abs=tolerance)
            assert int(found.steps[i]) == steps
