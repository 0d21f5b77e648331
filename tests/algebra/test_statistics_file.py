"""Statistics files: whole or absent, and never somebody else's."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lightning_edit.algebra import Identity, KeyCovariance, load_statistics, read_identity, save_statistics
from lightning_edit.algebra import statistics_file as module
from lightning_edit.errors import StatisticsError

IDENTITY = Identity(
    "llama:abc123", {2: "model.layers.2.mlp.down_proj", 5: "model.layers.5.mlp.down_proj"}, "wiki:9", "bfloat16"
)


def statistics(seed=0):
    found = {}
    for layer, size in ((2, 6), (5, 9)):
        found[layer] = KeyCovariance(size)
        found[layer].update(torch.randn(30, size, generator=torch.Generator().manual_seed(seed + layer)))
    return found


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "deep" / "statistics.safetensors"
    save_statistics(file, statistics(), IDENTITY)
    return file


def test_statistics_come_back_bit_for_bit(path):
    back = load_statistics(path, IDENTITY)
    assert list(back) == [2, 5]
    for layer, covariance in statistics().items():
        assert back[layer].count == covariance.count == 30
        assert torch.equal(back[layer].moment, covariance.moment)
        assert torch.equal(back[layer].mean, covariance.mean)
    assert list(load_statistics(path, layers=[5])) == [5]
    assert read_identity(path) == IDENTITY


def test_the_file_is_packed_and_says_what_it_is(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        assert file.get_tensor("layer.5.second").shape == (45,)
        assert file.get_tensor("layer.5.second").dtype == torch.float64
    assert metadata["model"] == "llama:abc123"
    assert metadata["tokens"] == "30"
    assert "down_proj" in metadata["sites"]
    assert "wiki:9" in metadata["corpus"]
    assert "bfloat16" in metadata["dtype"]


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        (Identity("gpt2:zzz"), ["model is 'llama:abc123', expected 'gpt2:zzz'"]),
        (Identity("llama:abc123", {5: "model.layers.5.mlp.up_proj"}), ["site of layer 5", "up_proj", "down_proj"]),
        (Identity("llama:abc123", corpus="news:1"), ["corpus is 'wiki:9', expected 'news:1'"]),
        (Identity("llama:abc123", dtype="float32"), ["dtype is 'bfloat16', expected 'float32'"]),
    ],
)
def test_statistics_of_something_else_are_refused_with_both_identities(path, expect, words):
    with pytest.raises(StatisticsError) as error:
        load_statistics(path, expect)
    for word in [*words, "llama:abc123", expect.model, str(path)]:
        assert word in str(error.value)


def test_what_is_not_expected_is_not_compared(path):
    assert set(load_statistics(path, Identity("llama:abc123"))) == {2, 5}
    assert set(load_statistics(path, Identity("llama:abc123", {7: "elsewhere"}))) == {2, 5}
    assert set(load_statistics(path)) == {2, 5}


def test_missing_layers_and_files_are_named(path):
    with pytest.raises(StatisticsError, match=r"layers \[2, 5\], not of \[3\]"):
        load_statistics(path, layers=[2, 3])
    with pytest.raises(StatisticsError, match="no statistics file"):
        load_statistics(path.parent / "nothing.safetensors")


def test_truncated_foreign_and_damaged_files_are_refused(path):
    content = path.read_bytes()
    for size in (0, 4, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(StatisticsError, match="Collect again"):
            load_statistics(path, IDENTITY)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(StatisticsError, match=r"holds None; expected 'lightning_edit.key_statistics'"):
        load_statistics(path)
    _resave(path, content, {"version": "0"})
    with pytest.raises(StatisticsError, match="version 0; expected 1"):
        load_statistics(path)


def _resave(path, content, changes):
    """Write the file again with other metadata."""
    path.write_bytes(content)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {**metadata, **changes})


def test_contents_that_do_not_fit_are_refused(path):
    content = path.read_bytes()
    _resave(path, content, {"sizes": '{"2": 6, "5": 8}'})
    with pytest.raises(StatisticsError, match="is damaged"):
        load_statistics(path)
    poisoned = statistics()
    poisoned[2]._second[0, 0] = float("nan")
    save_statistics(path, poisoned, IDENTITY)
    with pytest.raises(StatisticsError, match="layer 2 is not finite"):
        load_statistics(path)


def test_a_killed_write_leaves_the_old_file(path, monkeypatch):
    content = path.read_bytes()

    def die(*args):
        raise KeyboardInterrupt

    for victim in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(module.os, victim, die)
            with pytest.raises(KeyboardInterrupt):
                save_statistics(path, statistics(seed=7), IDENTITY)
        assert path.read_bytes() == content
        assert [file.name for file in path.parent.iterdir()] == [path.name]
    save_statistics(path, statistics(seed=7), IDENTITY)
    assert path.read_bytes() != content
