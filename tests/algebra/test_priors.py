"""Each prior against its dense matrix; what it refuses; how it is named and saved."""

import io

import pytest
import torch

from lightning_edit.algebra import (
    CovariancePrior,
    KeyCovariance,
    NullSpacePrior,
    ProjectedPrior,
    RidgePrior,
    prior_from_state,
)
from lightning_edit.algebra.triangles import cholesky
from lightning_edit.errors import StateError, StatisticsError
from tests import reference
from tests.algebra.toys import KINDS, dense, make_prior, make_toy, null_basis

EYE = torch.eye(60, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cond", [1e2, 1e6])
def test_every_operation_is_that_of_the_dense_matrix(kind, cond):
    toy = make_toy(cond=cond)
    prior, penalty, basis = make_prior(kind, toy.moment)
    span = EYE if basis is None else basis
    inside = span @ span.T
    inner = reference.tensor(reference.eliminate(reference.long(span.T @ penalty @ span), reference.long(span.T)))
    expected = span @ inner  # (n, n) the pseudo-inverse of the penalty on the range
    half = prior.half(toy.keys)
    assert prior.rank == span.shape[1]
    assert reference.relative(dense(prior), expected) < 1e-9
    assert reference.relative(half.T @ half, toy.keys.T @ expected @ toy.keys) < 1e-9
    assert reference.relative(prior.lift(half), expected @ toy.keys) < 1e-9
    assert reference.relative(prior.apply(toy.keys), expected @ toy.keys) < 1e-9
    assert prior.lift_factor is None or reference.relative(half * prior.lift_factor, expected @ toy.keys) < 1e-9
    assert reference.relative(prior.project(toy.keys), inside @ toy.keys) < 1e-12
    assert reference.relative(prior.inverse_apply(prior.apply(toy.keys)), inside @ toy.keys) < 1e-9
    assert reference.relative(prior.inverse_apply(toy.keys), inside @ penalty @ inside @ toy.keys) < 1e-12
    precision = prior.precision()
    assert float(torch.linalg.eigvalsh(precision)[0]) > 0
    assert reference.relative(inside @ precision, precision @ inside) < 1e-12
    assert reference.relative(inside @ precision @ inside, inside @ penalty @ inside) < 1e-12


def test_projected_prior_is_the_formula_of_the_table():
    toy = make_toy()
    basis = null_basis(toy.moment, 0.02)
    projector = basis @ basis.T
    formula = projector @ torch.linalg.pinv(15.0 * projector @ toy.moment @ projector + 0.5 * EYE) @ projector
    assert reference.relative(dense(ProjectedPrior(toy.moment, 15.0, threshold=0.02, l2=0.5)), formula) < 1e-11


def test_nullspace_energy_is_a_share_of_the_trace_and_free_of_scale():
    toy = make_toy()
    values = torch.linalg.eigvalsh(toy.moment)
    for scale in (1e-6, 1.0, 1e6):
        prior = NullSpacePrior(scale * toy.moment, energy=0.02)
        null = prior.rank
        assert float(values[:null].sum()) <= 0.02 * float(values.sum()) < float(values[: null + 1].sum())


def low_rank_moment(rank, size=60):
    covariance = KeyCovariance(size)
    covariance.update(torch.randn(rank, size, generator=torch.Generator().manual_seed(2)) + 1)
    return covariance.moment


@pytest.mark.parametrize("rank", [1, 30, 59])
def test_a_moment_without_full_rank_is_refused_with_its_rank(rank):
    moment = low_rank_moment(rank)
    with pytest.raises(StatisticsError, match=rf"rank {rank} of 60: {60 - rank} dead directions.*RidgePrior"):
        CovariancePrior(moment, 15.0)
    assert RidgePrior(moment, 15.0, 1e-3).rank == 60


@pytest.mark.parametrize("luck", [2e-15, 8e-15])
def test_a_factorisation_that_succeeds_by_rounding_luck_is_not_believed(luck):
    moment = low_rank_moment(59)
    moment = moment + luck * torch.diag(moment.diagonal())
    assert cholesky(15.0 * moment) is not None
    with pytest.raises(StatisticsError, match="rank 59 of 60: 1 dead directions"):
        CovariancePrior(moment, 15.0)


def test_enough_tokens_are_accepted():
    assert CovariancePrior(low_rank_moment(61), 15.0).rank == 60


def test_dead_units_are_counted_and_named():
    moment = make_toy().moment.clone()
    moment[[3, 17]] = 0
    moment[:, [3, 17]] = 0
    with pytest.raises(StatisticsError, match=r"rank 58 of 60: 2 dead directions, 2 of them .* never fired.*\[3, 17\]"):
        CovariancePrior(moment, 15.0)


def test_scales_of_units_do_not_look_like_a_lack_of_rank():
    scale = torch.logspace(-9, 9, 60, dtype=torch.float64)
    toy = make_toy(cond=1e4)
    assert CovariancePrior(scale[:, None] * toy.moment * scale, 15.0).rank == 60


@pytest.mark.parametrize("cond", [1e8, 1e12])
def test_ill_conditioned_moments_are_accepted(cond):
    assert CovariancePrior(make_toy(cond=cond).moment, 15.0).rank == 60


def test_a_ridge_lost_in_rounding_is_refused():
    with pytest.raises(StatisticsError, match="lost in rounding"):
        RidgePrior(1e12 * low_rank_moment(30), 1.0, 1e-9)


M = make_toy().moment
REFUSED = {
    "no rule": (lambda: NullSpacePrior(M), "threshold=None and energy=None; expected exactly one"),
    "two rules": (lambda: NullSpacePrior(M, threshold=0.1, energy=0.1), "expected exactly one"),
    "nothing null": (lambda: NullSpacePrior(M, threshold=1e-9), "nothing could be edited"),
    "all null": (lambda: NullSpacePrior(M, threshold=1e9), "every direction is null"),
    "energy 0": (lambda: NullSpacePrior(M, energy=0.0), "energy is 0"),
    "energy 1": (lambda: ProjectedPrior(M, 1.0, energy=1.0), "every direction is null"),
    "l2 0": (lambda: NullSpacePrior(M, threshold=0.02, l2=0.0), "l2 is 0.0; expected a finite number > 0"),
    "free": (lambda: ProjectedPrior(low_rank_moment(30), 1.0, threshold=1e-3, l2=0.0), "30 of .* used by no text"),
    "weight 0": (lambda: CovariancePrior(M, 0.0), "weight is 0.0"),
    "weight nan": (lambda: CovariancePrior(M, float("nan")), "weight is nan"),
    "ridge -1": (lambda: RidgePrior(M, 1.0, -1.0), "ridge is -1.0"),
    "not square": (lambda: CovariancePrior(M[:, :5], 1.0), r"shape \(60, 5\); expected a square"),
    "nan": (lambda: CovariancePrior(M * float("nan"), 1.0), "not finite"),
    "not symmetric": (lambda: CovariancePrior(M + M.triu(1), 1.0), "not symmetric"),
    "negative": (lambda: CovariancePrior(M - EYE, 1.0), "negative diagonal"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_prior_refuses(name):
    make, message = REFUSED[name]
    with pytest.raises(StatisticsError, match=message):
        make()


def test_projected_prior_without_l2_takes_a_moment_of_full_rank():
    basis = null_basis(M, 0.02)
    formula = basis @ torch.linalg.inv(basis.T @ (15.0 * M) @ basis) @ basis.T
    assert reference.relative(dense(ProjectedPrior(M, 15.0, threshold=0.02, l2=0.0)), formula) < 1e-11


@pytest.mark.parametrize("kind", KINDS)
def test_state_comes_back_bit_for_bit(kind):
    toy = make_toy()
    prior = make_prior(kind, toy.moment)[0]
    file = io.BytesIO()
    torch.save(prior.state_dict(), file)
    file.seek(0)
    back = prior_from_state(torch.load(file, weights_only=True))
    assert type(back) is type(prior)
    assert (back.size, back.rank, back.fingerprint) == (prior.size, prior.rank, prior.fingerprint)
    assert torch.equal(back.half(toy.keys), prior.half(toy.keys))
    assert torch.equal(back.apply(toy.keys), prior.apply(toy.keys))
    assert torch.equal(back.precision(), prior.precision())


def test_an_unknown_kind_is_refused():
    with pytest.raises(StateError, match=r"prior None; expected one of \['covariance', 'ridge'"):
        prior_from_state({})


def test_fingerprints_name_what_defines_a_prior():
    bumped = M.clone()
    bumped[5, 5] += 1e-16 + 1e-15 * bumped[5, 5]
    priors = [
        CovariancePrior(M, 15.0),
        CovariancePrior(M, 15.0 + 1e-12),
        CovariancePrior(bumped, 15.0),
        RidgePrior(M, 15.0, 0.1),
        RidgePrior(M, 15.0, 0.2),
        NullSpacePrior(M, threshold=0.02),
        NullSpacePrior(M, energy=0.02),
        NullSpacePrior(M, threshold=0.02, l2=2.0),
        ProjectedPrior(M, 15.0, threshold=0.02),
        ProjectedPrior(M, 15.0, energy=0.02),
    ]
    prints = [prior.fingerprint for prior in priors]
    assert len(set(prints)) == len(prints)
    assert all(len(name) == 64 and int(name, 16) >= 0 for name in prints)
    assert CovariancePrior(M.clone(), 15).fingerprint == prints[0]
    assert CovariancePrior(M.T.contiguous().T, 15).fingerprint == prints[0]


def test_a_prior_is_frozen_when_the_moments_go_on():
    covariance = KeyCovariance(60)
    covariance.update(torch.randn(200, 60, generator=torch.Generator().manual_seed(3)))
    prior = CovariancePrior(covariance.moment, 15.0)
    before = dense(prior)
    covariance.update(5 * torch.ones(10, 60))
    assert torch.equal(dense(prior), before)
