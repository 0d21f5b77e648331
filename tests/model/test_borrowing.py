"""A borrowed model comes back as it was."""

import pytest
import torch
from transformers import set_seed


@pytest.fixture
def model(tiny_model):
    """A model in the middle of training: mixed modes, frozen parts, gradients, dropout."""
    model = tiny_model("gpt2", attn_pdrop=0.5, embd_pdrop=0.5).train()
    model.transformer.h[1].eval()
    model.transformer.wte.weight.requires_grad_(False)
    model(input_ids=torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss.backward()
    return model


def snapshot(model):
    return {
        "modes": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "weights": [p.detach().clone() for p in model.parameters()],
        "cache": model.config.use_cache,
        "rng": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
    }


def assert_same(one, other):
    for key, value in one.items():
        if isinstance(value, list):
            assert len(value) == len(other[key])
            pairs = zip(value, other[key], strict=True)
            assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs), key
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, other[key]), key
        else:
            assert value == other[key], key


def test_everything_is_restored(model, tokenizer):
    from lightning_edit.model.language_model import LanguageModel

    lm = LanguageModel(model, tokenizer)
    before = snapshot(model)
    lm.read_keys(["Ada is", "Bob"], [(0, 3)] * 2, [0, 2])
    lm.read_hidden(["Ada is", "Bob"], [(0, 3)] * 2, [1])
    with lm.borrow():
        torch.randn(3)
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        assert model.config.use_cache is False
        assert not torch.is_grad_enabled()
    assert_same(before, snapshot(model))


def test_everything_is_restored_after_an_exception(tiny_lm):
    tiny_lm.model.train()
    tiny_lm.model.model.norm.eval()
    before = snapshot(tiny_lm.model)

    def interrupted():
        with tiny_lm.borrow(), tiny_lm.borrow():
            torch.randn(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_same(before, snapshot(tiny_lm.model))


def test_reading_does_not_depend_on_the_mode(model, tokenizer):
    from lightning_edit.model.language_model import LanguageModel

    lm = LanguageModel(model, tokenizer)
    noisy = lm.read_keys(["Ada is"], [(0, 3)], [2])[2]
    model.eval()
    assert torch.equal(noisy, lm.read_keys(["Ada is"], [(0, 3)], [2])[2])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_borrowing_works_inside_other_modes(tiny_lm, mode):
    expected = tiny_lm.read_keys(["Ada is"], [(0, 3)], [1])[1]
    with mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = snapshot(tiny_lm.model)
        got = tiny_lm.read_keys(["Ada is"], [(0, 3)], [1])[1]
        assert torch.equal(got, expected)
        with tiny_lm.borrow(), torch.enable_grad():
            delta = torch.zeros(320, requires_grad=True)
            logits = tiny_lm.model(input_ids=torch.tensor([[3, 4]])).logits + delta
            assert logits.dtype == torch.float32
            (gradient,) = torch.autograd.grad(logits.square().sum(), [delta])
            assert gradient.abs().sum() > 0
        assert_same(before, snapshot(tiny_lm.model))
    assert not got.is_inference()


def test_training_goes_on_as_if_nothing_had_happened(tiny_model, tokenizer):
    from lightning_edit.model.language_model import LanguageModel

    def train(disturb):
        set_seed(0)
        model = tiny_model("gpt2", resid_pdrop=0.3).train()
        lm = LanguageModel(model, tokenizer)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            ids = torch.randint(2, 300, (2, 8))
            model(input_ids=ids, labels=ids).loss.backward()
            if disturb:
                lm.read_keys(["Ada is"], [(0, 3)], [0, 1])
            optimizer.step()
            optimizer.zero_grad()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(train(disturb=False), train(disturb=True))


def test_sampling_may_advance_the_random_state(tiny_lm):
    state = torch.get_rng_state()
    with tiny_lm.borrow(rng=False):
        torch.randn(3)
    assert not torch.equal(state, torch.get_rng_state())
    torch.set_rng_state(state)


def test_compiled_graphs_do_not_hide_the_hooks(tiny_lm):
    ids = torch.tensor([[3, 4, 5]])
    expected = tiny_lm.read_keys(["Ada is"], [(0, 3)], [1])[1]
    tiny_lm.model.compile(backend="eager")
    with torch.no_grad():
        compiled = tiny_lm.model(input_ids=ids).logits
    assert torch.equal(tiny_lm.read_keys(["Ada is"], [(0, 3)], [1])[1], expected)
    with torch.no_grad():
        assert torch.equal(tiny_lm.model(input_ids=ids).logits, compiled)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_random_state_of_the_gpu_is_restored(tiny_lm):
    tiny_lm.model.cuda()
    state = torch.cuda.get_rng_state()
    with tiny_lm.borrow():
        torch.randn(3, device="cuda")
    assert torch.equal(state, torch.cuda.get_rng_state())
    assert tiny_lm.read_keys(["Ada is"], [(0, 3)], [1])[1].is_cuda
