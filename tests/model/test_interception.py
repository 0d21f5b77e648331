"""Intercept reads, replaces and stops, and always lets go."""

import pytest
import torch
from torch import nn

from lightning_edit.errors import SiteError
from lightning_edit.model.interception import Intercept
from lightning_edit.model.sites import find_sites


class Block(nn.Module):
    """Returns a tuple, as some decoder blocks do."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.inner(x), "something else"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.calls = 0

    def forward(self, x):
        for block in self.blocks:
            x, rest = block(x)
            assert rest == "something else"
        self.calls += 1
        return x


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def hooks(module):
    return sum(len(child._forward_hooks) + len(child._forward_pre_hooks) for child in module.modules())


def test_inputs_and_outputs_are_read(net):
    x = torch.randn(2, 3)
    with Intercept(net, inputs=["blocks.0.inner"], outputs=["blocks.0", "blocks.1.inner"]) as seen:
        net(x)
    assert torch.equal(seen.inputs["blocks.0.inner"], x)
    assert torch.equal(seen.outputs["blocks.0"], net.blocks[0](x)[0])
    assert torch.equal(seen.outputs["blocks.1.inner"], net.blocks[1].inner(seen.outputs["blocks.0"]))
    assert hooks(net) == 0


def test_what_is_read_survives_additions_in_place():
    class Adding(nn.Module):  # as Falcon's block does with the FFN's output
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x):
            return self.inner(x * 2).add_(1.0)

    net = Adding()
    with Intercept(net, inputs=["inner"], outputs=["inner"]) as seen:
        net(torch.ones(2))
    assert seen.inputs["inner"].tolist() == seen.outputs["inner"].tolist() == [2.0, 2.0]


def test_a_function_chooses_what_is_kept(net):
    with Intercept(net, inputs={"blocks.1": lambda value: value.sum()}) as seen:
        net(torch.ones(2, 3))
    assert seen.inputs["blocks.1"].shape == ()


def test_outputs_are_replaced_and_read_as_replaced(net):
    x = torch.randn(2, 3)
    with Intercept(net, edits={"blocks.1": torch.zeros_like}, outputs=["blocks.1"]) as seen:
        result = net(x)
    assert torch.equal(seen.outputs["blocks.1"], torch.zeros(2, 3))
    assert torch.equal(result, net.blocks[2](torch.zeros(2, 3))[0])
    assert not torch.equal(result, net(x))


def test_stop_ends_the_forward_and_the_block(net):
    ran = []
    net.blocks[2].register_forward_pre_hook(lambda module, args: ran.append(1))
    with Intercept(net, inputs=["blocks.1.inner"], stop=True) as seen:
        net(torch.ones(2, 3))
        raise AssertionError("never reached")
    assert seen.inputs["blocks.1.inner"].shape == (2, 3)
    assert net.calls == 0
    assert ran == []
    net(torch.ones(2, 3))
    assert net.calls == 1


def test_stop_waits_for_all(net):
    with Intercept(net, inputs=["blocks.2", "blocks.0"], outputs=["blocks.1"], stop=True) as seen:
        net(torch.ones(2, 3))
    assert set(seen.inputs) == {"blocks.0", "blocks.2"}
    assert net.calls == 0


def test_an_inner_stop_does_not_end_the_outer_one(net):
    with Intercept(net, outputs=["blocks.0"]) as outer:
        with Intercept(net, inputs=["blocks.2"], stop=True):
            net(torch.ones(2, 3))
        net(torch.zeros(2, 3))
    assert torch.equal(outer.outputs["blocks.0"], net.blocks[0](torch.zeros(2, 3))[0])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_gone_after_an_exception(net, error):
    def fail(value):
        raise error("no")

    with pytest.raises(error, match="no"), Intercept(net, inputs={"blocks.1": fail}, outputs=["blocks.2"]):
        net(torch.ones(2, 3))
    assert hooks(net) == 0


def test_an_unknown_module_is_named_and_nothing_stays(net):
    with pytest.raises(SiteError, match=r"blocks\.7"), Intercept(net, inputs=["blocks.0", "blocks.7"]):
        pass
    assert hooks(net) == 0


def test_a_module_that_never_runs_is_named(net):
    with pytest.raises(SiteError, match=r"never reached blocks\.1"), Intercept(net, inputs=["blocks.1"]):
        pass
    assert hooks(net) == 0


def test_gradients_flow_through_what_is_read(net):
    with Intercept(net, outputs=["blocks.1"]) as seen:
        net(torch.ones(2, 3))
    (gradient,) = torch.autograd.grad(seen.outputs["blocks.1"].sum(), [net.blocks[0].inner.weight])
    assert gradient.abs().sum() > 0


def test_every_family_can_be_read_changed_and_stopped(family_model):
    site = find_sites(family_model)[1]
    ids = torch.arange(2, 8).unsqueeze(0)
    with torch.no_grad():
        clean = family_model(input_ids=ids).logits
        with Intercept(family_model, inputs=[site.name], outputs=[site.block]) as seen:
            again = family_model(input_ids=ids).logits
        assert torch.equal(clean, again)
        assert seen.inputs[site.name].shape[-1] == site.inner
        assert seen.outputs[site.block].shape == (1, 6, site.width)
        with Intercept(family_model, edits={site.block: torch.zeros_like}):
            changed = family_model(input_ids=ids).logits
        assert not torch.allclose(clean, changed)
        with Intercept(family_model, outputs=[site.block], stop=True) as stopped:
            family_model(input_ids=ids)
            raise AssertionError("never reached")
        assert torch.equal(stopped.outputs[site.block], seen.outputs[site.block])
    assert hooks(family_model) == 0
