"""Networks and functions that a debiaser cannot use are refused before anything is trained."""

import calls
import numpy as np
import pytest
import torch
from calls import GROUPS, ROWS, Y
from skorch import NeuralNetClassifier
from torch import nn

from skfair import ThresholdDebiaser

pytestmark = pytest.mark.thorough

DEBIASERS = sorted(name for name in calls.ESTIMATORS if name.endswith("Debiaser"))
TUNING = [name for name in DEBIASERS if name not in ("ThresholdDebiaser", "LinearPostDebiaser")]
TRAINED = ["AdversarialFinetuneDebiaser", "BiasGradientDebiaser", "DistillationDebiaser"]


class Odd(nn.Module):
    """A linear network with a forward of its own."""

    def __init__(self, forward, weight=True):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        nn.init.ones_(self.linear.weight)
        if not weight:
            del self.linear
        self._forward = forward

    def forward(self, X):
        return self._forward(self, X)


def _only_if(condition):
    def forward(self, X):
        if not condition(self, X):
            raise KeyError("cache")
        return self.linear(X)

    return forward


def _without_gradients(self, X):
    with torch.no_grad():
        return self.linear(X)


IN_EVAL = r"estimator does not run on X.*in eval mode.*KeyError: 'cache'"
ONE_TENSOR = r"estimator returns a {}; expected one tensor.*forward returns the logits"
REFUSED = {
    "in training only": (DEBIASERS, Odd(_only_if(lambda net, X: net.training)), IN_EVAL),
    "with gradients only": (DEBIASERS, Odd(_only_if(lambda *_: torch.is_grad_enabled())), IN_EVAL),
    "not one row": (DEBIASERS, Odd(_only_if(lambda net, X: len(X) > 1)), IN_EVAL),
    "a tuple": (
        DEBIASERS,
        Odd(lambda net, X: ("logit", net.linear(X))),
        ONE_TENSOR.format("tuple"),
    ),
    "a dict": (DEBIASERS, Odd(lambda net, X: {"y": net.linear(X)}), ONE_TENSOR.format("dict")),
    "one number": (
        DEBIASERS,
        Odd(lambda net, X: net.linear(X).sum()),
        ONE_TENSOR.format("single number"),
    ),
    "no weights": (
        TUNING,
        Odd(lambda net, X: X[:, 0], weight=False),
        r"estimator holds a Odd without floating parameters.*ThresholdDebiaser",
    ),
    "without gradients only": (
        TRAINED,
        Odd(_only_if(lambda *_: not torch.is_grad_enabled())),
        r"estimator runs on X without gradients.*KeyError: 'cache'",
    ),
    "no gradients": (
        TRAINED,
        Odd(_without_gradients),
        "estimator returns outputs without gradients",
    ),
}


@pytest.mark.parametrize(
    "name, case", [(name, case) for case, (names, *_) in REFUSED.items() for name in names]
)
def test_networks(name, case):
    _, network, message = REFUSED[case]
    called = calls.call(calls.make(name, estimator=network).fit, ROWS, Y, sensitive_features=GROUPS)
    with pytest.raises(ValueError, match=message):
        raise called.error


@pytest.mark.parametrize("name", DEBIASERS)
def test_a_network_that_does_not_run_in_double_precision(name):
    def forward(self, X):
        if X.dtype != torch.float32:
            raise KeyError(X.dtype)
        return self.linear(X)

    debiaser = calls.make(name, estimator=Odd(forward))
    assert calls.call(debiaser.fit, ROWS, Y, sensitive_features=GROUPS).error is None
    calls.check_predictions(debiaser, ROWS)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Softmax(dim=1)])
def test_probabilities_that_are_called_logits(last):
    n_outputs = 1 if isinstance(last, nn.Sigmoid) else 2
    network = nn.Sequential(nn.Linear(3, n_outputs), last)
    debiaser = ThresholdDebiaser(network, output="logits", random_state=0)
    called = calls.call(debiaser.fit, ROWS, Y, sensitive_features=GROUPS)
    with pytest.raises(ValueError, match=r"to be logits.*module .* is S.*output='probabilities'"):
        raise called.error


@pytest.mark.parametrize("name", DEBIASERS)
def test_a_margin_that_leaves_nothing(name):
    debiaser = calls.make(name, confidence=None, margin=0.1, epsilon=0.1)
    called = calls.call(debiaser.fit, ROWS, Y, sensitive_features=GROUPS)
    with pytest.raises(ValueError, match=r"margin must be smaller than epsilon.*Lower margin"):
        raise called.error


def _fails(*_, **__):
    raise KeyError("oops")


def _says_nothing(*_, **__):
    return None


@pytest.mark.parametrize("parameter", ["constraint", "performance"])
@pytest.mark.parametrize(
    "function, message",
    [(_fails, "raised KeyError: 'oops'"), (_says_nothing, "returned None, expected one number")],
)
def test_functions_that_fail_are_named(parameter, function, message):
    debiaser = ThresholdDebiaser(calls.network(), random_state=0, **{parameter: function})
    called = calls.call(debiaser.fit, ROWS, Y, sensitive_features=GROUPS)
    with pytest.raises(ValueError, match=f"^{parameter}={function.__name__}, called as.*{message}"):
        raise called.error


class _TwoLogits(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]))
            self.linear.bias.zero_()

    def forward(self, X):
        return self.linear(X)


@pytest.mark.parametrize("classes", [None, [0, 1], [1, 0], ["no", "yes"]])
def test_names_of_classes_in_a_skorch_net_do_not_turn_predictions_round(classes):
    # It trains on positions of outputs and predicts them, whatever `classes` says.
    net = NeuralNetClassifier(
        _TwoLogits,
        criterion=nn.CrossEntropyLoss,
        classes=classes,
        lr=1e-9,
        max_epochs=1,
        train_split=None,
        verbose=0,
    ).fit(ROWS, Y.astype(np.int64))
    with calls.quiet():
        debiaser = ThresholdDebiaser(net, epsilon=0.99)
        debiaser.fit(ROWS, Y, sensitive_features=GROUPS)
    np.testing.assert_array_equal(debiaser.classes_, [0, 1])
    # One threshold keeps the order of rows that the net has.
    probability = net.predict_proba(ROWS)[:, 1]
    order = np.argsort(probability)
    assert (np.diff(debiaser.predict_proba(ROWS)[order, 1]) >= 0).all()


@pytest.mark.parametrize("name", sorted(set(calls.ESTIMATORS) - set(calls.OF_IMAGES)))
def test_rows_beyond_the_reach_of_the_network(name):
    X = ROWS.astype(np.float64)
    X[3, 0] = 1e300
    with pytest.raises(ValueError, match=r"X\b.*(infinity|too large)"):
        raise calls.predict(name, np.where(X == 1e300, np.inf, X)).error
    called = calls.fit_and_predict(name, X, Y, GROUPS)
    with pytest.raises(ValueError, match=r"infinity.*"):
        raise called.error
