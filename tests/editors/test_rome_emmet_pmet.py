"""ROME, EMMET and PMET: closed forms on every family, and what they declare."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import CovariancePrior, KeyCovariance, L1Penalty, RidgePrior
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.editors.presets import Preset
from lightning_edit.editors.residual import Sharing, mismatch
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight, write_weight
from lightning_edit.requests import EditRequest
from lightning_edit.targets import Targets, optimize_targets
from tests.editors.conftest import STRONG, fact, facts, gap, says, score
from tests.reference import one_time
from tests.reference_rome_emmet_pmet import emmet, rome

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]

FAMILIES = ["gpt2", "gptj", "llama", "mistral", "qwen2"]
EDITORS = {"rome": 0.0, "emmet": 0.1, "pmet": 1.0}  # name: noise
CONTEXTS = ["The city is known. ", "He was ", "In the north, "]


def texts_of(requests: list[EditRequest]) -> tuple[list[str], list[tuple[int, int]]]:
    """Prompts, and where their subjects stand."""
    return [request.prompt for request in requests], [request.subject_span or (0, 0) for request in requests]


def ffn_output(lm: LanguageModel, layer: int, requests: list[EditRequest]) -> Tensor:
    """What the FFN puts out at each subject's last token (d, m), one whole forward a text."""
    columns = []
    for text, span in zip(*texts_of(requests), strict=True):
        seen: list[Tensor] = []
        hook = lm.projection(layer).register_forward_hook(lambda module, args, output: seen.append(output))  # noqa: B023
        with torch.no_grad():
            lm.model(input_ids=lm.encode([text]).input_ids)
        hook.remove()
        columns.append(seen[0].reshape(-1, 32)[lm.subject_positions([text], [span])[0]])
    return torch.stack(columns, dim=1)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Targets]:
    """The targets that editors find, in order."""
    targets: list[Targets] = []

    def remember(*args: object) -> Targets:
        targets.append(optimize_targets(*args))  # type: ignore[arg-type]
        return targets[-1]

    monkeypatch.setattr("lightning_edit.editors.upkeep.optimize_targets", remember)
    return targets


# ------------------------------------------------------------------------------------------------------ closed forms
@pytest.mark.parametrize("original_keys", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_rome_is_the_textbook_update(
    family: str, original_keys: bool, make_lm: Make, make_editor: MakeEditor, moments: Moments, found: list[Targets]
) -> None:
    lm, plain = make_lm(family), make_lm(family)
    options = {"layers": [1], "original_keys": original_keys, "contexts": CONTEXTS, "steps": 6}
    make_editor(lm, "rome", **options).edit(lm, facts(1))
    prompts, spans = texts_of(facts(1))
    texts = [context + prompts[0] for context in ("", *CONTEXTS)]
    shifted = [(spans[0][0] + len(context), spans[0][1] + len(context)) for context in ("", *CONTEXTS)]
    keys = plain.read_keys(texts, shifted, [1])[1]  # (contexts, n)
    residual = found[0].z[0] - found[0].start[0]
    torch.testing.assert_close(found[0].start[0], ffn_output(plain, 1, facts(1))[:, 0])
    base, bare = read_weight(plain.projection(1)), keys[0] if original_keys else None
    expected = rome(base, moments(plain)[1].moment, keys.mean(0), residual, bare)
    update = read_weight(lm.projection(1)) - base
    assert gap([update], [expected - base]) < 1e-9
    assert torch.linalg.matrix_rank(update) == 1
    met = keys[0] if original_keys else keys.mean(0)  # the key that gives what was wanted, and the other one
    other = keys.mean(0) if original_keys else keys[0]
    torch.testing.assert_close(update @ met, residual, rtol=1e-8, atol=1e-8)
    assert (update @ other - residual).norm() > 1e-3 * residual.norm()


def test_the_published_mismatch_stretches_without_bound(moments: Moments, make_lm: Make) -> None:
    prior = RidgePrior(moments(make_lm())[1].moment, 1.0, 0.1)
    generator = torch.Generator().manual_seed(0)
    keys, other = torch.randn(2, 64, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(mismatch(prior, keys, keys), torch.ones(3, dtype=torch.float64))
    along = (keys * prior.apply(other)).sum(0) / (keys * prior.apply(keys)).sum(0)
    askew = other - keys * (along - 1e-6)  # all but at right angles
    torch.testing.assert_close(
        mismatch(prior, keys, askew), torch.full((3,), 1e6, dtype=torch.float64), rtol=1e-6, atol=0
    )
    with pytest.raises(EditError, match="original_keys=False"):
        mismatch(prior, keys, torch.zeros_like(keys))


@pytest.mark.parametrize("family", FAMILIES)
def test_emmet_solves_the_constrained_problem(
    family: str, make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm, plain = make_lm(family), make_lm(family)
    editor = make_editor(lm, "emmet", layers=[1], history="kept", ridge=0.3, steps=4)
    editor.edit(lm, facts(3))
    ledger, base = editor.sites[0].ledger, read_weight(plain.projection(1))
    penalty = 5.0 * moments(plain)[1].moment + 0.3 * torch.eye(64, dtype=torch.float64)
    expected = emmet(base, penalty, 0.1, ledger.keys, ledger.values)
    assert gap([read_weight(lm.projection(1)) - base], [expected - base]) < 1e-9


@pytest.mark.parametrize("family", FAMILIES)
def test_pmet_spreads_by_square_roots_and_writes_ffns_only(
    family: str, make_lm: Make, make_editor: MakeEditor, moments: Moments, found: list[Targets]
) -> None:
    lm, plain = make_lm(family), make_lm(family)
    editor = make_editor(lm, "pmet", layers=[0, 1, 2], contexts=[], steps=5)
    editor.edit(lm, facts(3))
    assert [target.start.shape for target in found] == [(3, 32)]
    torch.testing.assert_close(found[0].start.T, ffn_output(plain, 2, facts(3)))
    prior = moments(plain)
    prompts, spans = texts_of(facts(3))
    for i, layer in enumerate((0, 1, 2)):
        weight = read_weight(plain.projection(layer)).clone()
        keys = plain.read_keys(prompts, spans, [layer])[layer].T
        missing = (found[0].z.T - ffn_output(plain, 2, facts(3))) / (3 - i) ** 0.5
        expected = one_time(weight, 5.0 * prior[layer].moment, 1.0, keys, weight @ keys + missing)
        assert gap([read_weight(lm.projection(layer)) - weight], [expected - weight]) < 1e-9
        write_weight(plain.projection(layer), expected)
    for (name, one), (_, other) in zip(lm.model.named_parameters(), plain.model.named_parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-9), name  # everything else was never touched


def test_shares_of_the_residual() -> None:
    whole = torch.full((2, 1), 6.0)
    assert [Sharing().part(whole, left)[0, 0].item() for left in (3, 2, 1)] == [2, 3, 6]
    roots = [Sharing("sqrt").part(whole, left)[0, 0].item() for left in (4, 1)]
    assert roots == [3, 6]


@pytest.mark.parametrize(("name", "noise"), [("memit", 1.0), *EDITORS.items()])
def test_any_covariance_editor_can_be_confined_to_the_null_space(
    name: str, noise: float, make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm, plain = make_lm(), make_lm()
    null = {"projected": True, "nullspace_energy": 0.2, "l2": 0.01, "prior_weight": 0.5}
    editor = make_editor(lm, name, layers=[1], history="kept", steps=4, **null)
    for first in (0, 2):
        editor.edit(lm, facts(2, first))
    moment, base = moments(plain)[1].moment, read_weight(plain.projection(1))
    values, vectors = torch.linalg.eigh(moment)
    basis = vectors[:, values.cumsum(0) <= 0.2 * values.sum()]
    penalty, ledger = 0.5 * moment + 0.01 * torch.eye(64, dtype=torch.float64), editor.sites[0].ledger
    expected = emmet(base, penalty, noise, ledger.keys, ledger.values, basis)
    assert 0 < basis.shape[1] < 64
    assert gap([ledger.solution() - base], [expected - base]) < 1e-8


def test_rome_without_the_covariance(make_lm: Make, make_editor: MakeEditor) -> None:
    for given, adjustment in ((False, {"mom2_adjustment": False}), (False, {}), (True, {"mom2_adjustment": False})):
        lm, plain = make_lm(), make_lm()
        preset = Preset("one way or the other", layers=(0, 1), mom2_adjustment=given)
        options = {"layers": None, "preset": preset, "steps": 4, **adjustment}
        editor = make_editor(lm, "rome", history="kept", **options)
        editor.edit(lm, facts(1))
        ledger, base = editor.sites[0].ledger, read_weight(plain.projection(1))
        expected = rome(base, torch.eye(64), ledger.keys, ledger.values - base @ ledger.keys)
        assert gap([ledger.solution()], [expected]) < 1e-12


# ------------------------------------------------------------------------------------------------------ declarations
@pytest.mark.parametrize("name", EDITORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_teaches_every_family(name: str, family: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm(family, torch.float32)
    editor = make_editor(lm, name, **({} if name == "pmet" else {"layers": [1]}))
    assert editor.history == ("kept" if name == "pmet" else "absorbed")
    for request in facts(2):
        before = score(lm, request)[0]
        editor.edit(lm, [request])
        assert score(lm, request)[0] > before + 1
        assert name == "pmet" or says(lm, request)


def test_rome_takes_the_covariance_where_neither_preset_nor_user_is_against_it(make_lm: Make, moments: Moments) -> None:
    lm, off = make_lm(), Preset("against", layers=(1,), mom2_adjustment=False)
    moment = moments(lm)[1]
    exact = CovariancePrior(moment.moment, 1.0).fingerprint
    for preset, options in ((Preset("plain"), {}), (off, {"mom2_adjustment": True})):
        assert get_editor("rome", **options).make_prior(moment, preset).fingerprint == exact
    assert get_editor("rome").make_prior(moment, off).fingerprint != exact


def test_one_layer_unless_several_are_named(make_lm: Make) -> None:
    lm = make_lm()
    wide = Preset("wide", layers=(0, 1, 2), noise=0.3, ridge=0.2, prior_weight=7.0)
    for name in ("rome", "emmet"):
        assert get_editor(name, preset=wide).attach(lm) == [2]
        assert get_editor(name, preset=wide, layers=[0, 1]).attach(lm) == [0, 1]
        assert len(get_editor(name).attach(lm)) == 1
    assert get_editor("pmet", preset=wide).attach(lm) == [0, 1, 2]
    assert get_editor("rome").places == ("ffn",)
    assert get_editor("rome", layers=[0, 1]).places == ("block",)


def test_emmet_takes_its_numbers_from_the_preset(make_lm: Make, moments: Moments) -> None:
    lm = make_lm()
    wide = Preset("wide", layers=(0, 1), noise=0.3, ridge=0.2, prior_weight=7.0)
    moment = moments(lm)[1].moment
    for options, noise in (({}, 0.3), ({"noise": 0.0}, 0.0)):
        editor = get_editor("emmet", preset=wide, **{**STRONG, "steps": 3}, **options)
        editor.prepare(lm, statistics=moments(lm))
        editor.edit(lm, [fact(len(options))])
        assert editor.sites[0].ledger.noise == noise
        assert editor.sites[0].ledger.prior.fingerprint == RidgePrior(moment, 7.0, 0.2).fingerprint
    plain = get_editor("emmet")
    assert plain.make_noise(Preset("quiet")) == 0.1


@pytest.mark.parametrize("options", [{"deployment": "none"}, {"conflicts": "append"}])
def test_what_a_presets_noise_of_zero_excludes_is_said_when_the_editor_is_made(options: dict[str, object]) -> None:
    exact, kept = Preset("exact", noise=0.0), {"history": "kept", **options}
    with pytest.raises(EditError, match="with noise 0"):
        get_editor("emmet", preset=exact, **kept)
    get_editor("emmet", preset=exact, noise=0.1, **kept)  # one's own comes first
    get_editor("emmet", preset=Preset("slack", noise=0.2), **kept)
    with pytest.raises(EditError, match="penalty with noise 0"):
        get_editor("emmet", preset=exact, penalty=L1Penalty(weight=0.1))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("rome", {"l2": 1.0}, "expected projected=True"),
        ("memit", {"nullspace_energy": 0.1}, "expected projected=True"),
        ("pmet", {"projected": True, "ridge": 1.0}, "expected l2"),
        ("emmet", {"projected": True, "nullspace_threshold": 0.1, "nullspace_energy": 0.1}, "two rules"),
        ("emmet", {"noise": -0.1}, "0 or more"),
        ("rome", {"history": "forgotten"}, "expected one of 'kept'"),
        ("pmet", {"history": "kept", "aligned": False}, "contradict"),
        ("rome", {"spreading": "sqrt"}, "has no option 'spreading'"),
    ],
)
def test_wrong_options(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(EditError, match=words):
        get_editor(name, **options)
