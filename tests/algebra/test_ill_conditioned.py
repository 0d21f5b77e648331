"""How many digits of the update are left where the moment's condition is 1e12: few for few columns, enough for many."""

import pytest

from lightning_edit.algebra import SiteLedger
from tests import reference
from tests.algebra.toys import make_prior, make_toy

UPDATE = {1: 2e-5, 5: 1e-5, 24: 1e-8}  # columns of 60: bound on the update's relative error


@pytest.mark.parametrize("count", UPDATE)
def test_few_columns_leave_digits_in_the_weight_but_not_in_the_outputs(count):
    found = []
    for seed in range(3):
        problem = make_toy(count=count, cond=1e12, seed=seed)
        prior, penalty, _ = make_prior("covariance", problem.moment)
        ledger = SiteLedger(problem.base, prior)
        ledger.append(problem.ids, problem.keys, problem.values)
        update = ledger.solution() - problem.base
        expected = reference.one_time(problem.base, penalty, 1.0, problem.keys, problem.values) - problem.base
        found.append(float(reference.relative(update, expected)))
        assert reference.relative(update @ problem.keys, expected @ problem.keys) < 1e-8
    assert max(found) < UPDATE[count], found
    if count == 1:
        assert max(found) > 1e-7  # so 1e-8 is promised for many columns only
