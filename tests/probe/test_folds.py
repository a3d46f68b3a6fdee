"""No fit has seen the group of what it predicts; chance stays chance; what is planted is found."""

import numpy as np
import pytest

pytest.importorskip("statsmodels")

from blankfill.errors import DataError
from blankfill.probe.beside import control_task, count_words, lengths, online_code, permuted
from blankfill.probe.explain import explain_target
from blankfill.probe.families import Law
from blankfill.probe.folds import given_folds, require_apart
from blankfill.probe.names import LINKS
from blankfill.probe.nested import cross_validate
from blankfill.probe.scoring import score_law
from probe.planted import plant, task_of


@pytest.mark.parametrize("stratified", ["binomial", "gaussian"])
@pytest.mark.parametrize("seed", range(20))
def test_a_group_is_in_one_fold(stratified, seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 23, 120)
    _, groups = np.unique(groups, return_inverse=True)
    task = task_of(stratified, rng.integers(0, 2, 120).astype(float), 2, groups)
    folds = task.draw(5, seed)
    assert sorted(np.concatenate(folds).tolist()) == list(range(120))
    for number, fold in enumerate(folds):
        others = np.concatenate([each for i, each in enumerate(folds) if i != number])
        assert not set(groups[fold]) & set(groups[others])


def test_folds_are_the_same_for_a_seed_and_others_for_another():
    task = task_of("gaussian", np.arange(60.0))
    assert [f.tolist() for f in task.draw(4, 1)] == [f.tolist() for f in task.draw(4, 1)]
    assert [f.tolist() for f in task.draw(4, 1)] != [f.tolist() for f in task.draw(4, 2)]


def test_a_group_in_two_given_folds_is_named():
    folds = given_folds(["a", "a", "b", "b"])
    require_apart(folds, np.array([0, 0, 1, 1]))
    with pytest.raises(DataError, match="'one' is in two folds"):
        require_apart(folds, np.array([0, 1, 1, 1]), ["zero", "one"])


def test_no_fit_sees_what_it_predicts(monkeypatch):
    """Items are numbered in a column, so that each fit and prediction tells what it was given."""
    from blankfill.probe import nested

    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 3)
    task = task_of("gaussian", rng.normal(size=60), 0, groups)
    numbered = np.column_stack([np.arange(60.0), rng.normal(size=60)])
    pairs = []

    def watching(_family, features, y, _penalty, _exposure, _classes):
        seen = features[:, 0].astype(int)
        assert (task.y[seen] == y).all()

        def mean(other, _of):
            pairs.append((set(groups[seen]), set(groups[other[:, 0].astype(int)])))
            return np.zeros(len(other))

        return mean

    monkeypatch.setattr(nested, "mean_of", watching)
    cross_validate(task, {0: numbered}, task.draw(5, 0))
    assert len(pairs) == 5 * (len(nested.PENALTIES) * nested.INNER_FOLDS + 1)
    assert not any(seen & asked for seen, asked in pairs)


@pytest.mark.parametrize("family", LINKS)
def test_permuted_targets_are_predicted_no_better_than_chance(family):
    columns, y, _, num_classes = plant(family, LINKS[family][0], n=500)
    task = task_of(family, y, num_classes)
    scores = []
    for of in (task, permuted(task, 0)):
        found = cross_validate(of, {0: columns}, of.draw(4, 0))
        scores.append(score_law("representation", of, found.chosen, found.marginal))
    real, chance = scores
    assert real.gain > 3 * real.gain_error
    assert real.explained > 0.03
    assert chance.gain < 3 * chance.gain_error
    assert chance.explained < 0.03


def test_the_layer_that_holds_the_target_is_chosen():
    columns, y, _, _ = plant("poisson", "log", n=200)
    noise = np.random.default_rng(9).normal(size=(200, 5))
    task = task_of("poisson", y)
    found = cross_validate(task, {0: noise, 3: columns}, task.draw(4, 0))
    assert set(found.layers) == {3}
    assert (found.chosen.mean == found.by_layer[3].mean).all()


def test_a_margin_explains_nothing_and_the_truth_something():
    columns, y, _, _ = plant("gaussian", "identity", n=300)
    task = task_of("gaussian", y)
    found = cross_validate(task, {0: columns}, task.draw(5, 0))
    nothing = score_law("margin", task, found.marginal, found.marginal)
    assert nothing.explained == pytest.approx(0, abs=1e-12)
    assert nothing.gain == 0
    score = score_law("representation", task, found.chosen, found.marginal)
    assert score.explained == pytest.approx(score.value, abs=0.02)  # R2, but for folds' means


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
def test_a_code_is_short_where_the_target_is_held(family):
    columns, y, _, num_classes = plant(family, LINKS[family][0], n=800)
    task = task_of(family, y, num_classes)
    noise = np.random.default_rng(9).normal(size=(800, 3))
    assert online_code(task, columns, seed=0) < -0.05
    assert online_code(task, noise, seed=0) > -0.02


def test_a_control_target_is_one_for_each_type():
    task = task_of("gaussian", np.arange(50.0))
    types = np.arange(50) % 7
    control = control_task(task, types.tolist(), 0)
    for each in range(7):
        assert len(set(control.y[types == each])) == 1
    assert set(control.y) <= set(task.y)
    assert len(set(control.y)) > 3


def test_words_and_lengths_are_of_the_texts():
    tokens = [np.array([1, 1, 2]), np.array([2, 3]), np.array([1])]
    counts = count_words(tokens, 5).toarray()
    assert np.allclose(counts, np.log1p([[2, 1], [0, 1], [1, 0]]))  # 3 stands in one text alone
    assert lengths(tokens, ["abc", "d", "ef"])[:, :2].tolist() == [[3, 3], [2, 1], [1, 2]]


def test_components_are_chosen_without_what_they_predict():
    columns, y, _, _ = plant("gaussian", "identity", n=200)
    mixed = columns @ np.random.default_rng(1).normal(size=(3, 6))
    task = task_of("gaussian", y)
    folds = task.draw(4, 0)
    found = explain_target(task, "identity", mixed, folds, [])
    changed = task_of("gaussian", y.copy())
    changed.y[folds[0]] = 100.0  # what is predicted of a fold does not follow from its targets
    again = explain_target(changed, "identity", mixed, folds, [])
    assert np.allclose(found.left_out.mean[folds[0]], again.left_out.mean[folds[0]])
    assert not np.allclose(found.left_out.mean[folds[1]], again.left_out.mean[folds[1]])
    assert found.fitted.num_parameters == found.design.shape[1] + 2
    assert sum(step.ratio for step in found.steps) == pytest.approx(
        2 * (found.fitted.log_likelihood - found.null.log_likelihood), abs=1e-6
    )
    effect = found.effects[0]
    assert effect.value == pytest.approx(found.fitted.params[1], abs=1e-9)
    assert effect.high - effect.low == pytest.approx(3.92 * found.fitted.errors[1], rel=0.15)


def test_laws_of_folds_come_back_in_the_order_of_the_items():
    folds = [np.array([1, 3]), np.array([0, 2])]
    laws = [Law.of("gaussian", fold.astype(float), 1.0 + fold) for fold in folds]
    joined = Law.joined(laws, folds)
    assert joined.mean.tolist() == [0, 1, 2, 3]
    assert joined.dispersion.tolist() == [1, 2, 3, 4]
