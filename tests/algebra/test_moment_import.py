"""Moment files of the public code: read to the last digit, and refused when they are somebody else's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import Identity, KeyCovariance, load_statistics, save_statistics
from lightning_edit.algebra.moment_import import describe_moments, read_moments
from lightning_edit.editors import get_editor
from lightning_edit.errors import StatisticsError
from lightning_edit.model.imported_statistics import import_statistics
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import expected_identity

SIZE = 6


def keys(seed: int = 0, size: int = SIZE, count: int = 50) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) + 0.3


def write(path: Path, rows: Tensor, mean: bool = False, **changes: object) -> Path:
    """A file as `save_cached_state` of the public code writes it."""
    content: dict[str, object] = {
        "mom2.constructor": "util.runningstats.SecondMoment()",
        "mom2.count": len(rows),
        "mom2.mom2": (rows.mT @ rows).numpy(),
        "sample_size": 100_000,
    }
    if mean:
        content |= {"mean.count": len(rows), "mean.mean": rows.mean(0).numpy(), "mean.data_shape": (rows.shape[1],)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{key: value for key, value in (content | changes).items() if value is not None})
    return path


def test_moments_are_the_mean_of_outer_products(tmp_path: Path) -> None:
    rows = keys()
    found = read_moments(write(tmp_path / "a.npz", rows, mean=True), SIZE)
    own = KeyCovariance(SIZE)
    own.update(rows)
    assert found.count == own.count == 50
    assert torch.equal(found.moment, found.moment.mT)
    torch.testing.assert_close(found.moment, own.moment, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.mean, own.mean, rtol=1e-6, atol=1e-6)
    found.merge(own)
    assert found.count == 100


def test_a_mean_that_the_file_lacks_is_asked_for_in_vain(tmp_path: Path) -> None:
    found = read_moments(write(tmp_path / "a.npz", keys()))
    with pytest.raises(StatisticsError, match="without the mean key"):
        _ = found.mean
    path = tmp_path / "own.safetensors"
    save_statistics(path, {0: found}, Identity("m", {0: "s"}))
    back = load_statistics(path)[0]
    assert torch.equal(back.moment, found.moment)
    with pytest.raises(StatisticsError, match="without the mean key"):
        _ = back.mean


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mom2.mom2": None}, "no mom2.mom2; it holds mom2.constructor, mom2.count, sample_size"),
        ({"mom2.mom2": np.ones((SIZE, 4))}, r"shape \(6, 4\); expected a square matrix"),
        ({"mom2.mom2": np.triu(np.ones((SIZE, SIZE)))}, "no sum of k kᵀ"),
        ({"mom2.mom2": -np.eye(SIZE)}, "smallest diagonal entry -1"),
        ({"mom2.mom2": np.full((SIZE, SIZE), np.inf)}, "mom2.mom2 is not finite"),
        ({"mom2.mom2": np.eye(SIZE, dtype=int)}, "type int64; expected floating-point"),
        ({"mom2.count": 0}, "mom2.count is 0"),
        ({"mean.count": 49, "mean.mean": np.ones(SIZE)}, "over 49 tokens; expected 6 over 50"),
        ({"mean.count": 50, "mean.mean": np.ones(5)}, "mean.mean has 5 entries"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(StatisticsError, match=words):
        read_moments(write(tmp_path / "a.npz", keys(), **changes), SIZE)


def test_what_is_no_moment_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match="keys of length 6; expected 9"):
        read_moments(write(tmp_path / "a.npz", keys()), 9)
    with pytest.raises(StatisticsError, match="no moment file"):
        read_moments(tmp_path / "absent.npz")
    whole = write(tmp_path / "a.npz", keys()).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StatisticsError, match="is no complete"):
        read_moments(tmp_path / "cut.npz")
    with open(tmp_path / "b.npz", "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(StatisticsError, match="holds one array"):
        read_moments(tmp_path / "b.npz")
    np.savez(tmp_path / "evil.npz", **{"mom2.count": 1, "mom2.mom2": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(StatisticsError, match="cannot be read"):
        read_moments(tmp_path / "evil.npz")


@pytest.mark.parametrize(
    ("path", "site", "model", "texts"),
    [
        ("stats/gpt2-xl/wikipedia_stats/transformer.h.17.mlp.c_proj_float32_mom2_100000.npz", "c_proj", "gpt2-xl", 1e5),
        (
            "EleutherAI_gpt-j-6B/wikitext_stats/transformer.h.5.mlp.fc_out_float64_mean-mom2.npz",
            "fc_out",
            "EleutherAI_gpt-j-6B",
            None,
        ),
        ("x/wikipedia_stats/model.layers.4.mlp.down_proj_float32_mom2_t512_300.npz", "down_proj", "x", 300),
        ("x/wikipedia_stats/model.layers.4.mlp.down_proj_float32_mom2_t{batch_tokens}_300.npz", "down_proj", "x", 300),
        ("elsewhere/model.layers.4.mlp.down_proj_float32_norm_mean_7.npz", "down_proj", None, 7),
        ("elsewhere/moments.npz", None, None, None),
    ],
)
def test_paths_say_whose_keys_they_are(path: str, site: str | None, model: str | None, texts: float | None) -> None:
    found = describe_moments(path)
    assert (found.site or "").endswith(site or "")
    assert (found.site is None) == (site is None)
    assert (found.model, found.texts) == (model, texts)


def folder_of(lm: LanguageModel, tmp_path: Path, model: str = "some-org_tiny-llama", inner: int | None = None) -> Path:
    """A folder of moments of every layer, of full rank."""
    folder = tmp_path / model / "wikipedia_stats"
    for site in lm.sites:
        name = f"{site.name}_float32_mom2_100.npz"
        write(folder / name, keys(site.layer, inner or site.inner, 400))
    return folder


def test_imported_statistics_edit_like_own_ones(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    tiny_lm.model.config._name_or_path = "some-org/tiny-llama"
    folder = folder_of(tiny_lm, tmp_path)
    found = import_statistics(tiny_lm, folder, [0, 2])
    assert sorted(found) == [0, 2]
    assert found.identity.sites == expected_identity(tiny_lm, [0, 2]).sites
    assert found.identity.corpus == "imported from 100 texts of wikipedia (some-org_tiny-llama)"
    own = {}
    for layer in found:
        own[layer] = KeyCovariance(64)
        own[layer].update(keys(layer, 64, 400).double())
    priors = []
    for statistics in (found, own):
        editor = get_editor("memit", layers=[0, 2], prior_weight=2.0)
        editor.prepare(tiny_lm, statistics=statistics)
        priors.append(editor._estate.priors)
    for layer in own:
        torch.testing.assert_close(priors[0][layer].precision(), priors[1][layer].precision(), rtol=1e-5, atol=1e-5)
    path = tmp_path / "own.safetensors"
    save_statistics(path, found, found.identity)
    get_editor("memit", layers=[0, 2]).prepare(tiny_lm, statistics=path)


def test_files_of_other_models_and_modules_are_refused(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    tiny_lm.model.config._name_or_path = "some-org/tiny-llama"
    other = folder_of(tiny_lm, tmp_path, model="gpt2-xl")
    with pytest.raises(StatisticsError, match="of the model 'gpt2-xl'; this one is 'tiny-llama'"):
        import_statistics(tiny_lm, other)
    assert sorted(import_statistics(tiny_lm, other, other_model=True)) == [0, 1, 2]
    short = folder_of(tiny_lm, tmp_path / "short", inner=9)
    with pytest.raises(StatisticsError, match="keys of length 9; expected 64"):
        import_statistics(tiny_lm, short)
    swapped = {0: next(folder_of(tiny_lm, tmp_path).glob("*layers.1.*"))}
    with pytest.raises(StatisticsError, match=r"read at model.layers.1.mlp.down_proj; layer 0 .* model.layers.0.mlp"):
        import_statistics(tiny_lm, swapped)


def test_missing_and_double_files_are_named(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    folder = folder_of(tiny_lm, tmp_path)
    next(folder.glob("*layers.1.*")).unlink()
    assert sorted(import_statistics(tiny_lm, folder)) == [0, 2]
    with pytest.raises(StatisticsError, match=r"layers \[0, 2\], not of \[1\]"):
        import_statistics(tiny_lm, folder, [0, 1, 2])
    write(folder / "model.layers.0.mlp.down_proj_float32_mom2_200.npz", keys(0, 64, 400))
    with pytest.raises(StatisticsError, match=r"two files for layer 0: .*_100.npz and .*_200.npz"):
        import_statistics(tiny_lm, folder)
    with pytest.raises(StatisticsError, match="is no folder"):
        import_statistics(tiny_lm, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StatisticsError, match="not of any layer"):
        import_statistics(tiny_lm, tmp_path / "empty")
