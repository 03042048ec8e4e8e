"""Metrics against scikit-learn, and merged over batches and workers without any loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.lightning import metrics as M
from ringgrad.lightning.metrics.metric import _pack, _unpack, merge

sk: Any = pytest.importorskip("sklearn.metrics")
rng = np.random.default_rng(0)
N, C = 101, 4
TARGET = rng.integers(0, C, N)
SCORES = np.round(rng.standard_normal((N, C)) + np.eye(C)[TARGET], 1)  # rounded: there are ties
CLASSES = SCORES.argmax(1)
BINARY = (rng.random(N) < 0.4).astype(np.int64)
PROBABILITY = np.round(np.clip(BINARY * 0.3 + rng.random(N) * 0.7, 0, 1), 2)
GUESS = (PROBABILITY > 0.5).astype(int)
X, Y = rng.standard_normal(N) + 1000, rng.standard_normal(N) + 1000
TOKENS = rng.integers(0, 5, (N, 3))
LABELS = rng.integers(0, 2, (N, 3))
CHANCES = np.round(np.clip(LABELS * 0.3 + rng.random((N, 3)) * 0.7, 0, 1), 2)
LABELLED = (CHANCES > 0.5).astype(int)
LOGITS = rng.standard_normal((N, 3, 5))


def perplexity() -> float:
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    return float(np.exp(sk.log_loss(TOKENS.reshape(-1), p.reshape(-1, 5), labels=range(5))))


Case = tuple[Callable[[], M.Metric], tuple[Any, Any], Callable[[], Any]]
many = {"task": "multiclass", "num_classes": C}
one = ("binary",)
CASES: dict[str, Case] = {
    "accuracy": (lambda: M.Accuracy(**many), (SCORES, TARGET), lambda: sk.accuracy_score(TARGET, CLASSES)),
    "top 2": (
        lambda: M.Accuracy(**many, top_k=2),
        (SCORES + np.arange(C) * 1e-6, TARGET),
        lambda: sk.top_k_accuracy_score(TARGET, SCORES + np.arange(C) * 1e-6, k=2),
    ),
    "macro accuracy": (
        lambda: M.Accuracy(**many, average="macro"),
        (SCORES, TARGET),
        lambda: sk.balanced_accuracy_score(TARGET, CLASSES),
    ),
    "binary accuracy": (
        lambda: M.Accuracy(*one),
        (PROBABILITY, BINARY),
        lambda: sk.accuracy_score(BINARY, GUESS),
    ),
    "confusion": (
        lambda: M.ConfusionMatrix(**many),
        (SCORES, TARGET),
        lambda: sk.confusion_matrix(TARGET, CLASSES),
    ),
    "confusion of classes": (
        lambda: M.ConfusionMatrix(**many, normalize="true"),
        (CLASSES, TARGET),
        lambda: sk.confusion_matrix(TARGET, CLASSES, normalize="true"),
    ),
    "auroc": (lambda: M.AUROC(*one), (PROBABILITY, BINARY), lambda: sk.roc_auc_score(BINARY, PROBABILITY)),
    "auroc of classes": (
        lambda: M.AUROC(**many),
        (SCORES, TARGET),
        lambda: np.mean([sk.roc_auc_score(np.equal(TARGET, c), SCORES[:, c]) for c in range(C)]),
    ),
    "average precision": (
        lambda: M.AveragePrecision(*one),
        (PROBABILITY, BINARY),
        lambda: sk.average_precision_score(BINARY, PROBABILITY),
    ),
    "average precision of classes": (
        lambda: M.AveragePrecision(**many, average="weighted"),
        (SCORES, TARGET),
        lambda: sk.average_precision_score(np.eye(C)[TARGET], SCORES, average="weighted"),
    ),
    "mse": (lambda: M.MeanSquaredError(), (X, Y), lambda: sk.mean_squared_error(Y, X)),
    "rmse": (lambda: M.MeanSquaredError(squared=False), (X, Y), lambda: sk.root_mean_squared_error(Y, X)),
    "mae": (lambda: M.MeanAbsoluteError(), (X, Y), lambda: sk.mean_absolute_error(Y, X)),
    "r2": (lambda: M.R2Score(), (X, Y), lambda: sk.r2_score(Y, X)),
    "mean": (lambda: M.MeanMetric(), (X, np.abs(Y)), lambda: np.average(X, weights=np.abs(Y))),
    "perplexity": (lambda: M.Perplexity(), (LOGITS, TOKENS), perplexity),
    "matthews": (
        lambda: M.MatthewsCorrCoef(**many),
        (SCORES, TARGET),
        lambda: sk.matthews_corrcoef(TARGET, CLASSES),
    ),
    "binary matthews": (
        lambda: M.MatthewsCorrCoef(*one),
        (PROBABILITY, BINARY),
        lambda: sk.matthews_corrcoef(BINARY, GUESS),
    ),
    "kappa": (
        lambda: M.CohenKappa(**many),
        (SCORES, TARGET),
        lambda: sk.cohen_kappa_score(TARGET, CLASSES),
    ),
}
for name, kind, theirs in (
    ("precision", M.Precision, sk.precision_score),
    ("recall", M.Recall, sk.recall_score),
    ("f1", M.F1Score, sk.f1_score),
):
    CASES[f"binary {name}"] = (
        lambda kind=kind: kind(*one),
        (PROBABILITY, BINARY),
        lambda theirs=theirs: theirs(BINARY, GUESS),
    )
    for average in ("micro", "macro", "weighted", None):
        CASES[f"{average} {name}"] = (
            lambda kind=kind, average=average: kind(**many, average=average),
            (SCORES, TARGET),
            lambda theirs=theirs, average=average: theirs(TARGET, CLASSES, average=average),
        )
for name, ranked, theirs in (
    ("auroc", M.AUROC, sk.roc_auc_score),
    ("average precision", M.AveragePrecision, sk.average_precision_score),
    ("precision", M.Precision, sk.precision_score),
    ("recall", M.Recall, sk.recall_score),
    ("f1", M.F1Score, sk.f1_score),
):
    guess = CHANCES if ranked in (M.AUROC, M.AveragePrecision) else LABELLED
    for average in ("micro", "macro", "weighted", None):
        CASES[f"{average} {name} of labels"] = (
            lambda kind=ranked, average=average: kind("multilabel", num_labels=3, average=average),
            (CHANCES, LABELS),
            lambda theirs=theirs, guess=guess, average=average: theirs(LABELS, guess, average=average),
        )
for average, over in (("micro", None), ("macro", None), (None, 0)):
    CASES[f"{average} accuracy of labels"] = (
        lambda average=average: M.Accuracy("multilabel", num_labels=3, average=average),
        (CHANCES, LABELS),
        lambda over=over: (LABELS == LABELLED).mean(over),
    )


def parts(data: tuple[Any, Any], cuts: list[int]) -> list[tuple[Any, Any]]:
    return list(zip(*(np.split(d, cuts) for d in data)))


@pytest.mark.parametrize("case", CASES)
def test_values_are_scikit_learns(case: str) -> None:
    make, data, expected = CASES[case]
    metric = make()
    for part in parts(data, [1, 40, 77]):
        metric(*(rg.from_numpy(p) for p in part))
    np.testing.assert_allclose(metric.compute().numpy(), expected(), rtol=1e-6)
    first = make()
    own = first(*parts(data, [40])[0])
    metric.reset()
    metric.update(*parts(data, [40])[0])
    np.testing.assert_array_equal(metric.compute().numpy(), own.numpy())


@pytest.mark.parametrize("case", CASES)
def test_workers_merge_to_the_value_of_all_samples(case: str) -> None:
    make, data, expected = CASES[case]
    states = []
    for part in [*parts(data, [1, 50]), None]:  # the last worker has no samples at all
        metric = make()
        if part is not None:
            metric.update(*part)
        states.append(_unpack(_pack(metric._states())))
    whole = make()
    whole._set_states(merge(states))
    np.testing.assert_allclose(whole.compute().numpy(), expected(), rtol=1e-6)


def test_logits_and_ignored_targets() -> None:
    metric = M.Accuracy("binary", ignore_index=-1)
    metric.update(rg.tensor([-3.0, 2.0, 5.0, 4.0]), rg.tensor([0, 1, 0, -1]))
    assert metric.compute().item() == pytest.approx(2 / 3)
    target = np.where(rng.random(LABELS.shape) < 0.2, -1, LABELS)
    each = [(CHANCES[target[:, i] >= 0, i], target[target[:, i] >= 0, i]) for i in range(3)]
    for kind, theirs in ((M.AUROC, sk.roc_auc_score), (M.F1Score, lambda t, p: sk.f1_score(t, p > 0.5))):
        metric = kind("multilabel", num_labels=3, average=None, ignore_index=-1)
        inside = CHANCES * 0.98 + 0.007
        metric.update(np.log(inside) - np.log(1 - inside), target)  # logits
        np.testing.assert_allclose(metric.compute().numpy(), [theirs(t, p) for p, t in each], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: M.Accuracy("many"), "task must be one of"),
        (lambda: M.Accuracy("multiclass"), "needs num_classes"),
        (lambda: M.Accuracy(**many, top_k=9), "top_k > 1 is for"),
        (lambda: M.Accuracy(**many).update(SCORES, TARGET[:5]), r"came \(101, 4\) and \(5,\)"),
        (lambda: M.Accuracy(**many).update(SCORES, TARGET + 1), r"target must be in 0 ... 3, came 1 ... 4"),
        (lambda: M.F1Score("multilabel"), "needs num_labels"),
        (lambda: M.ConfusionMatrix("multilabel"), "task must be one of .*multiclass.*, came 'multilabel'"),
        (lambda: M.AUROC(**many, average="micro"), "micro for multilabel"),
        (
            lambda: M.F1Score("multilabel", num_labels=3).update(LABELS, LABELS + 1),
            "target must be of 0 and 1",
        ),
        (
            lambda: M.F1Score("multilabel", num_labels=4).update(LABELS, LABELS),
            r"must be .N, 4, ....*came .101, 3.",
        ),
        (lambda: M.MeanSquaredError().update(X, Y[:3]), "must have one shape"),
        (lambda: M.Perplexity().update(X, Y), "must be .batch, tokens, vocabulary."),
    ],
)
def test_mistakes_are_told(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("case", [c for c in CASES if c != "confusion" and not c.startswith("confusion")])
def test_a_value_needs_samples(case: str) -> None:
    with pytest.raises(RuntimeError, match="needs"):
        CASES[case][0]().compute()


def test_extremes_and_sums_merge() -> None:
    for kind, value in ((M.MinMetric, X.min()), (M.MaxMetric, X.max()), (M.SumMetric, X.sum())):
        metric: Any = kind()
        for part in np.split(X, [3, 50]):
            metric(part)
        assert float(metric.compute()) == pytest.approx(value)
        merged = merge([_unpack(_pack(metric._states())), metric._states()])
        metric._set_states(merged)
        assert float(metric.compute()) == pytest.approx(2 * value if kind is M.SumMetric else value)


def test_a_collection_is_its_metrics() -> None:
    both = M.MetricCollection([M.Accuracy(**many), M.F1Score(**many, average="macro")], prefix="val_")
    for p, t in parts((SCORES, TARGET), [30]):
        first = both(p, t)
    assert list(first) == ["val_Accuracy", "val_F1Score"]
    found = both.compute()
    assert float(found["val_Accuracy"]) == pytest.approx(sk.accuracy_score(TARGET, CLASSES))
    assert float(found["val_F1Score"]) == pytest.approx(sk.f1_score(TARGET, CLASSES, average="macro"))
    both.reset()
    with pytest.raises(RuntimeError, match="needs samples"):
        both.compute()
    with pytest.raises(ValueError, match="pass a dict"):
        M.MetricCollection([M.Accuracy(**many), M.Accuracy(**many)])
