"""MEND: factors are gradients, updates act as written, the network learns from its first step, and edits are undone."""

import json
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.cli import main
from lightning_edit.editors import get_editor
from lightning_edit.editors.examples import example_losses, make_batches, make_examples
from lightning_edit.editors.mend.data import Lessons, MENDLessons
from lightning_edit.editors.mend.factors import applied, read_factors
from lightning_edit.editors.mend.network import GradientTransform, MENDNetwork
from lightning_edit.editors.mend.training import MENDTraining, ffn_modules, size_of
from lightning_edit.errors import EditError, RequestError, StateError, StatisticsError
from lightning_edit.model.adapter_hooks import find_linears
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.saving import save_folder
from lightning_edit.model.weights import base_layer, is_transposed, read_weight, write_weight
from lightning_edit.module import EditableModule
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from tests.editors.gradient import Make, changed, fact, facts, nothing_else_changes, snapshot
from tests.reference_gradient import target_loss

NAMES = {"gpt2": ["mlp.c_fc", "mlp.c_proj"], "llama": ["up_proj", "down_proj"]}


def paths_of(lm: LanguageModel, family: str) -> list[str]:
    return find_linears(lm.model, [site.block for site in lm.sites[1:]], NAMES[family])


@pytest.mark.parametrize("family", NAMES)
def test_factors_are_the_gradient_of_each_row(family: str, make_lm: Make) -> None:
    lm, batch = make_lm(family), facts(3)
    paths = paths_of(lm, family)
    with nothing_else_changes(lm), lm.borrow():
        factors, losses = read_factors(lm, paths, make_batches(lm, make_examples(lm, batch), 3)[0])
    for row, request in enumerate(batch):
        loss = target_loss(lm, request)
        assert losses[row].item() == pytest.approx(loss.item(), abs=1e-7)
        weights = [base_layer(lm.model.get_submodule(path)).weight for path in paths]
        for weight in weights:
            weight.requires_grad_(True)
        for path, gradient in zip(paths, torch.autograd.grad(target_loss(lm, request), weights), strict=True):
            x, delta = factors[path]
            whole = gradient.T if is_transposed(lm.model.get_submodule(path)) else gradient
            assert (delta[row].T @ x[row] - whole).norm() <= 1e-7 * whole.norm()  # rotary embeddings are in float32


@pytest.mark.parametrize("family", NAMES)
def test_an_update_acts_as_if_it_were_written(family: str, make_lm: Make) -> None:
    lm, batch = make_lm(family), facts(2)
    examples = make_examples(lm, batch)
    paths = paths_of(lm, family)
    sizes = {path: size_of(lm, path) for path in paths}
    update = {
        path: (torch.randn(2, 5, n, dtype=torch.float64), 0.1 * torch.randn(2, 5, d, dtype=torch.float64))
        for path, (n, d) in sizes.items()
    }
    with lm.borrow(), applied(lm, update):
        losses = example_losses(lm, make_batches(lm, examples, 2)[0])
    for row, request in enumerate(batch):
        other = make_lm(family)
        for path, (x, delta) in update.items():
            module = other.model.get_submodule(path)
            write_weight(module, read_weight(module) + delta[row].T @ x[row])
        assert losses[row].item() == pytest.approx(target_loss(other, request).item(), abs=1e-7)


def test_the_network_starts_as_the_identity_on_normal_factors_and_can_learn() -> None:
    torch.manual_seed(0)
    net = GradientTransform(3, 2, modules=2, rank=4)
    x, delta = 5 + torch.randn(2, 6, 3), 0.01 * torch.randn(2, 6, 2)
    delta[1, 4:] = 0  # padding
    with pytest.raises(StatisticsError, match="has seen 0 tokens"):
        net.eval()(x, delta, 0)
    net.train()
    net(x[:1], delta[:1], 0)
    told_x, told_delta = net(x[1:], delta[1:], 1)
    z = torch.cat([torch.cat([x, delta], -1)[0], torch.cat([x, delta], -1)[1, :4]]).double()
    expected = (z[6:] - z.mean(0)) / (z.std(0) + 1e-7)
    torch.testing.assert_close(torch.cat([told_x, told_delta], -1)[0, :4].double(), expected, rtol=1e-5, atol=1e-5)
    assert not told_x[0, 4:].any()
    told_delta.square().sum().backward()
    assert net.up.grad is not None
    assert net.up.grad.norm() > 0
    before = net.mean.clone()
    net.eval()(3 * x, delta, 0)
    assert torch.equal(net.mean, before)


@pytest.fixture
def folder(tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    model = tiny_model("llama")
    model.get_output_embeddings().weight.data.mul_(5)
    save_folder(model, tokenizer, tmp_path / "tiny")
    return tmp_path / "tiny"


def lessons(count: int) -> list[EditRequest]:
    kept = {"near": (Probe("the river of Gus is", ("large",)),)}
    return [fact(number, paraphrases=(f"so {fact(number).prompt}",), locality=kept) for number in range(count)]


@pytest.fixture
def trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[float]]:
    """A network that has seen a few requests many times, and its losses."""
    data = MENDLessons(count=4, validation=1, batch_size=4, rounds=40)
    monkeypatch.setattr(data, "_world", lambda: lessons(5))
    module = MENDTraining(str(folder), modules=["up_proj", "down_proj"], layers=[1, 2], rank=8, lr=1e-4, rate_lr=1e-3)
    before, seen = snapshot(module.lm), list[float]()

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            seen.append(float(trainer.callback_metrics["mend/edit_loss"]))

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[Watch()], default_root_dir=folder.parent, **quiet
    )
    trainer.fit(module, data)
    assert changed(module.lm, before) == []
    assert all(name.startswith("network.") for name in module.state_dict())
    assert float(trainer.callback_metrics["mend/val_divergence"]) >= 0
    return folder.parent / "mend.pt", seen


def test_a_trained_network_edits(folder: Path, trained: tuple[Path, list[float]], tmp_path: Path) -> None:
    file, losses = trained
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    lm = EditableModule.from_pretrained(folder).language_model
    before, batch = snapshot(lm), lessons(5)[1:3]
    editor = get_editor("mend", checkpoint=str(file), batch_size=1)
    assert editor.attach(lm) == [1, 2]
    with torch.no_grad():
        untold = [target_loss(lm, request).item() for request in batch]
    network = MENDNetwork.from_plain(torch.load(file, weights_only=True)["network"])
    with lm.borrow():
        factors, _ = read_factors(lm, network.paths, make_batches(lm, make_examples(lm, batch), 2)[0])
        update = {path: (x.detach(), delta.detach()) for path, (x, delta) in network(factors).items()}
    with nothing_else_changes(lm):
        report = editor.edit(lm, batch)
    assert len(changed(lm, before)) == 4
    for path, (x, delta) in update.items():
        way = lm.model.state_dict()[f"{path}.weight"] - before[f"{path}.weight"]
        expected = sum(delta[row].T @ x[row] for row in range(2))
        torch.testing.assert_close(way, expected, rtol=1e-3, atol=1e-5)
    assert all(report.losses[request.id] < old for request, old in zip(batch, untold, strict=True))
    editor.save(tmp_path / "state.pt")
    again = get_editor("mend", checkpoint=str(file))
    again.load(tmp_path / "state.pt")
    again.rollback(lm, 2)
    assert changed(lm, before) == []


def test_what_does_not_fit_is_said(
    folder: Path, trained: tuple[Path, list[float]], make_lm: Make, tmp_path: Path
) -> None:
    file, _ = trained
    with pytest.raises(EditError, match="mend needs a network that was trained for the model"):
        get_editor("mend")
    editor = get_editor("mend", checkpoint=str(file))
    with pytest.raises(StateError, match="was trained for the model"):
        editor.attach(make_lm("gpt2"))
    torch.save({"version": 1}, tmp_path / "other.pt")
    with pytest.raises(StateError, match="holds no network of MEND"):
        get_editor("mend", checkpoint=str(tmp_path / "other.pt"))
    with pytest.raises(StateError, match="by another trained network"):
        editor.load_state_dict({**editor.state_dict(), "network": "x"})
    with pytest.raises(RequestError, match="none of 2 requests has a locality probe"):
        Lessons(facts(2))


def test_lessons_of_the_embedded_world_are_drawn_from_seeds_of_their_own() -> None:
    data = MENDLessons(count=6, validation=2, batch_size=3)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert len(batch) == 2
    assert batch[0].edit.id.startswith("world-1001-")
    assert batch[0].outer.target == batch[0].edit.target
    assert batch[0].outer.prompt in batch[0].edit.paraphrases
    assert [len(part) for part in data.train_dataloader()] == [3, 3]


FEED_FORWARD = {
    "gpt2": ("mlp.c_fc", "mlp.c_proj"),
    "gptj": ("mlp.fc_in", "mlp.fc_out"),
    "gpt_neox": ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    "opt": ("fc1", "fc2"),
    "phi3": ("mlp.gate_up_proj", "mlp.down_proj"),
    **{name: ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj") for name in ("llama", "mistral", "qwen2", "qwen3")},
}


@pytest.mark.parametrize("family", FEED_FORWARD)
def test_the_modules_of_any_family_are_those_of_its_ffn(family: str, make_lm: Make) -> None:
    lm = make_lm(family, num_hidden_layers=4)
    module = MENDTraining(lm, rank=4)
    assert module.lm is lm
    blocks = [site.block for site in lm.sites[-3:]]
    assert module.network.paths == [f"{block}.{name}" for block in blocks for name in FEED_FORWARD[family]]
    named = MENDTraining(lm, modules=ffn_modules(lm), rank=4)
    assert named.network.paths == module.network.paths
    assert "model" not in module.hparams  # no part of checkpoints


@pytest.mark.slow
def test_the_recipe_trains_a_network_that_edits_the_embedded_model(tmp_path: Path) -> None:
    small = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.enable_progress_bar=false"]
    small += ["--data.count=8", "--data.validation=2", "--data.batch_size=4", "--model.rank=8", "--model.layers=[5]"]
    assert main(["run", "train_mend", "--output", str(tmp_path), *small, "--trainer.logger=false"]) == 0
    (row,) = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert 0 <= row["mend/val_said"] <= 1
    module = EditableModule("embedded")
    editor = get_editor("mend", checkpoint=str(tmp_path / "embedded" / "mend.pt"))
    assert editor.attach(module) == [5]
    request = next(iter(MENDLessons()._world()))
    with torch.no_grad():
        untold = target_loss(module.language_model, request).item()
    assert editor.edit(module, [request]).losses[request.id] < untold
