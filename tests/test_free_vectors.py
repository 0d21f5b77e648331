"""Targets at the FFN's output, alone or beside a second free vector at the attention's: equal to a plain loop."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.errors import EditError, SiteError
from lightning_edit.model.attention import attention_output
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets import Column, TargetOptions, TargetPrompt, optimize_targets
from tests.plain_targets import columns, easy_columns, loud

Build = Callable[..., PreTrainedModel]
ATTENTION = {
    "gpt2": "transformer.h.{}.attn.c_proj",
    "gptj": "transformer.h.{}.attn.out_proj",
    "gpt_neox": "gpt_neox.layers.{}.attention.dense",
    "opt": "model.decoder.layers.{}.self_attn.out_proj",
    "llama": "model.layers.{}.self_attn.o_proj",
    "mistral": "model.layers.{}.self_attn.o_proj",
    "qwen2": "model.layers.{}.self_attn.o_proj",
    "phi3": "model.layers.{}.self_attn.o_proj",
}


def plain_loop(lm: LanguageModel, family: str, column: Column, options: TargetOptions) -> tuple[Tensor, float, int]:
    """One column at block 1, one text at a time, the whole model every time, torch's Adam on all free vectors."""
    modules = {"ffn": lm.projection(1), "attention": lm.model.get_submodule(ATTENTION[family].format(1))}
    deltas = {place: torch.zeros(32, dtype=torch.float64, requires_grad=True) for place in options.places}
    start: dict[str, Tensor] = {}

    def scores(text: str, span: tuple[int, int]) -> Tensor:
        position = lm.subject_positions([text], [span])[0]

        def adder(place: str) -> Callable[..., Tensor]:
            def add(module: object, args: object, output: Tensor) -> Tensor:
                flat = output.clone().view(-1, 32)
                start.setdefault(place, flat[position].detach().clone())
                flat[position] = flat[position] + deltas[place]
                return flat.view(output.shape)

            return add

        handles = [modules[place].register_forward_hook(adder(place)) for place in options.places]
        try:
            return lm.model(input_ids=lm.encode([text]).input_ids).logits[0].log_softmax(-1)
        finally:
            for handle in handles:
                handle.remove()

    def likelihood(prompt: TargetPrompt) -> tuple[Tensor, bool]:
        text = f"{prompt.text} {prompt.target}"
        encoded = lm.encode([text])
        new = [i for i, (_, end) in enumerate(encoded.offsets[0]) if end > len(prompt.text)]
        log_p, ids = scores(text, prompt.span), encoded.input_ids[0]
        said = all(int(log_p[i - 1].argmax()) == int(ids[i]) for i in new)
        return torch.stack([-log_p[i - 1, ids[i]] for i in new]).mean(), said

    text, span = column.kl_prompt or ("", (0, 0))
    optimizer = torch.optim.Adam(deltas.values(), lr=options.lr)
    before, weight = None, 1.0
    for step in range(1, options.steps + 1):
        losses, said = zip(*(likelihood(prompt) for prompt in column.prompts), strict=True)
        now = scores(text, span)[lm.subject_positions([text], [span])[0]]
        before = now.detach() if before is None else before
        paid = options.kl * (now.exp() * (now - before)).sum()
        loss = weight * torch.stack(losses).mean() + paid
        for place, delta in deltas.items():
            loss = loss + options.weight_decay * delta.norm() / start[place].norm() ** 2
        if loss < options.stop_loss or step == options.steps:
            break
        if options.nll_after is not None and all(said) and paid <= options.kl_after:
            break
        for delta, gradient in zip(deltas.values(), torch.autograd.grad(loss, list(deltas.values())), strict=True):
            delta.grad = gradient
        if options.nll_after is not None:
            weight = options.nll_after if all(said) else 1.0  # seen from the next pass on
        optimizer.step()
        for place, delta in deltas.items():
            bound = options.clamp * start[place].norm()
            if delta.norm() > bound:
                delta.data.mul_(bound / delta.detach().norm())
    return start["ffn"] + deltas["ffn"].detach(), loss.item(), step


def compare(
    lm: LanguageModel, family: str, wanted: list[Column], options: TargetOptions, tolerance: float = 1e-8
) -> list[int]:
    """Batched against plain; the passes taken."""
    found = optimize_targets(lm, wanted, 1, options)
    with lm.borrow(), torch.enable_grad():
        for i, column in enumerate(wanted):
            z, loss, steps = plain_loop(lm, family, column, options)
            assert int(found.steps[i]) == steps
            torch.testing.assert_close(found.z[i], z, rtol=0, atol=tolerance)
            assert float(found.loss[i]) == pytest.approx(loss, abs=tolerance)
    return found.steps.tolist()


@pytest.mark.parametrize("family", ["gpt2", "gptj", "opt", "llama", "mistral", "qwen2"])
def test_two_free_vectors_equal_a_plain_loop(
    family: str, tiny_model: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = LanguageModel(tiny_model(family, dtype=torch.float64), tokenizer)
    options = TargetOptions(steps=5, clamp=0.8, kl=2.0, weight_decay=3.0, batch_size=3, places=("ffn", "attention"))
    compare(lm, family, columns(), options)


@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama"])
def test_a_target_at_the_ffn_equals_a_plain_loop(
    family: str, tiny_model: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = LanguageModel(tiny_model(family, dtype=torch.float64), tokenizer)
    compare(lm, family, columns()[:2], TargetOptions(steps=5, clamp=4.0, weight_decay=0.1, places=("ffn",)))


def test_what_is_said_already_weighs_less_and_ends_early(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(loud(tiny_model("llama", dtype=torch.float64)), tokenizer)
    wanted = [*easy_columns(), columns()[1]]
    common = {
        "places": ("ffn", "attention"),
        "lr": 0.2,
        "clamp": 6.0,
        "weight_decay": 1e-3,
        "stop_loss": 1e-4,
        "kl": 0.1,
    }
    eager = TargetOptions(steps=16, nll_after=0.1, kl_after=1.0, **common)
    taken = compare(lm, "llama", wanted, eager, tolerance=1e-6)  # Adam amplifies rounding over so many steps
    assert min(taken) < 16
    assert optimize_targets(lm, wanted, 1, TargetOptions(steps=16, **common)).steps.tolist() == [16] * 4
    weighed = TargetOptions(steps=12, nll_after=0.1, kl_after=0.0, **common)  # nothing settles: only weights differ
    assert compare(lm, "llama", wanted[:1], weighed, tolerance=1e-6) == [12]


def test_each_vector_has_a_clamp_of_its_own(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(tiny_model("llama", dtype=torch.float64), tokenizer)
    options = TargetOptions(steps=2, clamp=0.2, places=("ffn", "attention"))
    found = optimize_targets(lm, columns(), 1, options)
    share = (found.z - found.start).norm(dim=1) / found.start.norm(dim=1)
    torch.testing.assert_close(share, torch.full_like(share, 0.2))


def test_the_second_vector_helps_and_is_not_returned(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(loud(tiny_model("llama", dtype=torch.float64)), tokenizer)
    alone, both = (
        optimize_targets(lm, columns(), 1, TargetOptions(steps=8, clamp=0.8, weight_decay=0.0, places=places))
        for places in (("ffn",), ("ffn", "attention"))
    )
    assert float(both.loss.sum()) < float(alone.loss.sum())
    assert both.z.shape == alone.z.shape == (4, 32)
    torch.testing.assert_close(both.start, alone.start)


def test_batches_compaction_and_prefix_cache_do_not_matter(
    tiny_model: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = LanguageModel(loud(tiny_model("gpt2", dtype=torch.float64)), tokenizer)
    wanted = [*easy_columns(), *columns()]
    base = {"steps": 8, "clamp": 4.0, "stop_loss": 6.0, "places": ("ffn", "attention")}
    together = optimize_targets(lm, wanted, 1, TargetOptions(**base))
    assert len(set(together.steps.tolist())) > 1
    for change in ({"batch_size": 2}, {"prefix_cache": False}):
        other = optimize_targets(lm, wanted, 1, TargetOptions(**base, **change))
        torch.testing.assert_close(other.z, together.z, rtol=0, atol=1e-8)


@pytest.mark.parametrize("family", sorted(ATTENTION))
def test_finds_where_attention_writes(family: str, tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model(family, dtype=torch.float64)
    lm = LanguageModel(model, tokenizer)
    found = attention_output(lm.block(1), 32)
    assert found is model.get_submodule(ATTENTION[family].format(1))
    for layer in range(3):  # with every such module silent, no token hears of another
        output = attention_output(lm.block(layer), 32)
        for parameter in output.parameters():
            parameter.data.zero_()
    ids = torch.tensor([[5, 9, 7], [6, 9, 7]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    assert not torch.equal(logits[0, 0], logits[1, 0])
    torch.testing.assert_close(logits[0, 1:], logits[1, 1:], rtol=0, atol=1e-12)


def test_finds_it_below_an_adapter(tiny_model: Build) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"])
    model = peft.get_peft_model(tiny_model("llama"), config).get_base_model()
    assert attention_output(model.model.layers[0], 32) is model.model.layers[0].self_attn.o_proj


def test_a_block_without_attention_is_refused() -> None:
    with pytest.raises(SiteError, match="no attention"):
        attention_output(torch.nn.Sequential(torch.nn.Linear(32, 32)), 32)


@pytest.mark.parametrize("places", [(), ("attention",), ("ffn", "ffn"), ("ffn", "head")])
def test_impossible_places_are_refused(places: tuple[str, ...]) -> None:
    with pytest.raises(EditError, match="places"):
        TargetOptions(places=places)  # type: ignore[arg-type]


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(EditError, match="nll_after"):
        TargetOptions(nll_after=-0.1)
