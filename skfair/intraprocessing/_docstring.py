"""Intra-processing, all methods: what their docstrings share, filled in at import."""

import inspect
import re
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type[Any])

_PLACEHOLDER = re.compile(r"^([ \t]*)\{([\w -]+)\}[ \t]*$", re.MULTILINE)  # a line of its own
_ENTRY = re.compile(r"^[ \t]*([\w, ]+) : ", re.MULTILINE)  # `name : type` and `name, name : type`

TEXTS = {
    # -- parameters ------------------------------------------------------------------------
    "estimator": """
        estimator : torch.nn.Module, skorch net or skfair classifier
            The trained network. It maps a batch to one logit or probability for each row, or to
            two. It is copied and never changed. Searches clone it, and a clone of a fitted net is
            not fitted: for them, give the net in a :class:`~sklearn.frozen.FrozenEstimator`. A
            skorch net that is not fitted yet is cloned and fitted first.
        """,
    "constraint": """
        constraint : {"demographic_parity", "equal_opportunity", "average_odds", \
"equalized_odds"} or callable, default="demographic_parity"
            What must be nearly equal between groups: the selection rate, that is, the share of
            positive predictions; the true positive rate; the mean of the true and the false
            positive rate; or each of these two rates. With two groups, the bias is the value of
            the first group (in sorted order) minus the value of the second. With more groups,
            and for "equalized_odds", the bias is the largest difference. A callable
            ``f(y_true, y_pred, *, sensitive_features)`` returns the bias itself, from labels 0
            and 1; fairlearn's ``*_difference`` functions are examples.
        """,
    "constraint_by_name": """
        constraint : {"demographic_parity", "equal_opportunity", "average_odds", \
"equalized_odds"}, default="demographic_parity"
            What must be nearly equal between groups: the selection rate, that is, the share of
            positive predictions; the true positive rate; the mean of the true and the false
            positive rate; or each of these two rates. With two groups, the bias is the value of
            the first group (in sorted order) minus the value of the second. With more groups,
            and for "equalized_odds", the bias is the largest difference.
        """,
    "epsilon": """
        epsilon : float, default=0.05
            The constraint: the bias lies between ``-epsilon`` and ``epsilon``.
        """,
    "performance": """
        performance : {"balanced_accuracy", "accuracy", "f1"} or callable, \
default="balanced_accuracy"
            The score to keep high. A callable is ``f(y_true, y_pred)``.
        """,
    "validation_fraction": """
        validation_fraction : float, default=0.3
            Share of the rows that tune no weights, the same share of each group and class. These
            rows judge the candidates, and everything reported of the result is measured on them.
            A skorch net that is not fitted yet is fitted on the other rows.
        """,
    "lr": """
        lr : float, default=0.001
            Learning rate of Adam.
        """,
    "batch_size": """
        batch_size : int, default=512
            Rows in a batch, equally many of each group and class. A group and class with fewer
            rows gives all of them. The weights of the rows correct for their shares.
        """,
    "max_epochs": """
        max_epochs : int, default=24
            Passes over the rows that tune the weights. Each pass has at least ten batches.
        """,
    "confidence": """
        confidence : float, "auto" or None, default="auto"
            How certain it must be that the constraint holds on new rows.

            - "auto" considers the candidates whose measured bias meets the constraint. It
              maximises (performance - chance) times the probability that the constraint holds on
              new rows, twice as many as the rows that measured it. With more than two groups, it
              maximises (performance - chance) minus twice the expected excess of the largest
              difference over `epsilon`.
            - A float between 0 and 1 asks for a certificate at that confidence, on rows of its
              own; see `certificate_`.
            - None asks for a measured bias below ``epsilon - margin``, as in the code that
              Savani et al. (NeurIPS 2020) published.
        """,
    "margin": """
        margin : float, default=0.01
            Distance that the measured bias keeps from `epsilon`. Used with ``confidence=None``
            only.
        """,
    "small_groups": """
        small_groups : {"shrink", "exclude", "error"}, default="shrink"
            What to do with groups that have fewer than ten rows for a rate. "shrink" moves the
            rates of more than two groups towards each other, and rates of few rows move the most.
            "exclude" leaves small groups out of the constraint, since their rates cannot be
            estimated. "error" refuses them. The warning or error names the groups in each case.
        """,
    "calibration_fraction": """
        calibration_fraction : float, default=0.5
            Share of the rows that is kept for the certificate, the same share of each group.
            Used with a number as `confidence` only.
        """,
    "output": """
        output : {"auto", "logits", "probabilities"}, default="auto"
            What the network returns. "auto" knows this of skorch nets and skfair classifiers. For
            other networks it looks at the outputs, and raises an error where they could be either.
        """,
    "classes": """
        classes : array-like of shape (2,), default=None
            The labels in the order of the network's outputs. With a single output, the label of a
            large output comes second. The second label is the positive class. None takes the
            order that a skorch net or skfair classifier has learned; for other networks it sorts
            the labels.
        """,
    "parameters": """
        parameters : str or list of str, default=None
            Which parameters of the network may change: patterns for their names, as in
            ``named_parameters()``. "head.*" matches the names that begin with "head."; a pattern
            without ``*``, ``?`` and ``[``, such as "lora", matches the names that contain it. All
            other parameters count as frozen, as those with ``requires_grad=False`` do: they are
            not copied, but share their memory with the network in `estimator`. None takes all
            that require gradients, or all if none does.
        """,
    "device": """
        device : str or torch.device, default="auto"
            Where the network runs. "auto" takes the first of CUDA, MPS and CPU that is there.
        """,
    "random_state": """
        random_state : int, RandomState or None, default=None
            The same int gives the same bits on the same device.
        """,
    "verbose": """
        verbose : int, default=0
            1 shows a progress bar.
        """,
    # -- fitted attributes -----------------------------------------------------------------
    "classes_": """
        classes_ : ndarray of shape (2,)
            Class labels, sorted.
        """,
    "n_features_in_": """
        n_features_in_ : int
            Second dimension of X: the number of features, or of channels of an image.
        """,
    "module_": """
        module_ : torch.nn.Module
            The debiased network. Its inputs and outputs are those of the original network. The
            threshold is folded into the output, so that the usual threshold is the right one.
        """,
    "threshold_": """
        threshold_ : float
            What was subtracted from the network's logit. With two outputs, the logit is that of
            the positive class minus that of the other class.
        """,
    "bias_": """
        bias_ : float
            Bias of the result, cross-validated over the choice of the candidate, on rows that
            tuned no weights. With a certificate: bias on the calibration rows.
        """,
    "performance_": """
        performance_ : float
            Performance, measured in the same way as `bias_`.
        """,
    "objective_": """
        objective_ : float
            The value that the choice maximised; see `confidence`.
        """,
    "bias_interval_": """
        bias_interval_ : tuple of two floats
            95 % interval for the bias in the population, from the sampling error of the rates.
        """,
    "feasible_": """
        feasible_ : bool
            Whether the constraint holds on new rows with an estimated probability of 0.8 or more.
            With a number as `confidence`: whether the certificate holds.
        """,
    "pairs_": """
        pairs_ : DataFrame
            The difference between each two groups: "rate", "group_1", "group_2", "difference",
            "low" and "high" (95 % interval), and "probability" (that the difference of this pair
            is within `epsilon` on new rows).
        """,
    "certificate_": """
        certificate_ : FairnessCertificate or None
            What was shown at the stated confidence; None without a number as `confidence`.
        """,
    "interrupted_": """
        interrupted_ : bool
            Whether Ctrl-C ended the search early.
        """,
    "trials_": """
        trials_ : DataFrame
            One row for each candidate: "candidate", "threshold", "bias", "performance",
            "probability" (that the constraint holds on new rows), "objective" and "feasible".
            Row 0 is the original network with its own threshold. Row 1 is the original network
            with the best threshold. The values are those seen in the choice, where the best
            candidate looks too good. Without a certificate, row `best_trial_` has the values
            that are reported.
        """,
    "best_trial_": """
        best_trial_ : int
            Row of `trials_` with the candidate that was taken.
        """,
    "history_": """
        history_ : DataFrame
            Loss of each epoch on the rows that tune the weights.
        """,
    # -- warnings --------------------------------------------------------------------------
    "LabelOrderWarning": """
        LabelOrderWarning
            The network does worse than guessing on the debiasing rows: its classes seem to be in
            another order.
        """,
    "InfeasibleConstraintWarning": """
        InfeasibleConstraintWarning
            No candidate is likely enough to hold the constraint, or no candidate is certified.
            The best candidate was taken.
        """,
    "FallbackWarning": """
        FallbackWarning
            No candidate was better than the original network with its own or another threshold.
        """,
    "InterruptedSearchWarning": """
        InterruptedSearchWarning
            Ctrl-C ended the search. The best candidate so far was taken.
        """,
    "OverfitWarning": """
        OverfitWarning
            The bias on the rows that tuned the weights differs from the bias on the other rows.
        """,
    "SmallGroupWarning": """
        SmallGroupWarning
            The constraint compares a rate that has fewer than ten rows in some group.
        """,
    # -- notes, references, examples -------------------------------------------------------
    "eval_mode": """
        The network trains in eval mode: running statistics of normalisation layers do not
        change, and dropout is off. Parameters with ``requires_grad=False`` do not change either.
        """,
    "Savani_2020": """
        .. [1] Y. Savani, C. White, N. S. Govindarajulu, "Intra-Processing Methods for Debiasing
           Neural Networks", NeurIPS 2020.
        """,
    "biased_network": """
        >>> import numpy as np, torch
        >>> rng = np.random.default_rng(0)
        >>> group, y = rng.integers(2, size=(2, 2000))
        >>> X = np.column_stack([y + rng.normal(size=2000), group]).astype("float32")
        >>> network = torch.nn.Linear(2, 1)  # stands for a network that was trained
        >>> with torch.no_grad():
        ...     _ = network.weight.copy_(torch.tensor([[1.0, 1.0]])), network.bias.fill_(-1.0)
        """,
}


def fill_docstring(debiaser: Class) -> Class:
    """Fill the shared texts of the debiasers into the docstring of a class.

    A line such as ``{epsilon}`` is a placeholder. The text that the debiasers share replaces it,
    with the indentation of the line. A placeholder has the name of the parameter, fitted
    attribute or warning that it describes. Lines below it, further indented, go on with the
    description. Braces in other lines stay as they are.

    Parameters
    ----------
    debiaser : type
        A debiaser, of skfair or of your own.

    Returns
    -------
    type
        The same class. Without a docstring, as under ``python -OO``, nothing is changed.

    Raises
    ------
    ValueError
        No shared text has the name of a placeholder, or the docstring has no entry for a
        parameter of the constructor.

    Notes
    -----
    ``{constraint_by_name}`` describes a `constraint` that cannot be a callable, and
    ``{biased_network}`` makes the data and the network of the examples. The error for an unknown
    placeholder lists all names.

    An example in a filled docstring runs as a doctest. The file and first line that doctest
    reports are right. The line within the docstring counts the filled lines, too.

    Examples
    --------
    >>> import inspect
    >>> from skfair.intraprocessing import fill_docstring
    >>> @fill_docstring
    ... class MyDebiaser:
    ...     '''Change a network, step by step.
    ...
    ...     Parameters
    ...     ----------
    ...     {epsilon}
    ...         At 0.05, five points in a hundred.
    ...     n_steps : int, default=3
    ...         Steps to take.
    ...     '''
    ...
    ...     def __init__(self, *, epsilon=0.05, n_steps=3):
    ...         self.epsilon = epsilon
    ...         self.n_steps = n_steps
    >>> print(inspect.getdoc(MyDebiaser))
    Change a network, step by step.
    <BLANKLINE>
    Parameters
    ----------
    epsilon : float, default=0.05
        The constraint: the bias lies between ``-epsilon`` and ``epsilon``.
        At 0.05, five points in a hundred.
    n_steps : int, default=3
        Steps to take.
    """
    if debiaser.__doc__ is None:
        return debiaser

    def text(placeholder: re.Match) -> str:
        indent, name = placeholder.groups()
        if name not in TEXTS:
            raise ValueError(
                f"The docstring of {debiaser.__name__} has the placeholder {{{name}}}, and no "
                f"shared text has this name. Use one of {sorted(TEXTS)}, or write the text."
            )
        lines = inspect.cleandoc(TEXTS[name]).splitlines()
        return "\n".join(indent + line if line else "" for line in lines)

    documentation = _PLACEHOLDER.sub(text, debiaser.__doc__)
    found = {name for names in _ENTRY.findall(documentation) for name in names.split(", ")}
    for name, parameter in inspect.signature(debiaser).parameters.items():
        if name in found or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        placeholder = f"the placeholder {{{name}}} or " if name in TEXTS else ""
        raise ValueError(
            f"The docstring of {debiaser.__name__} does not describe {name}, a parameter of its "
            f"constructor. Under Parameters, write {placeholder}'{name} : type' and a description."
        )
    debiaser.__doc__ = documentation
    return debiaser
