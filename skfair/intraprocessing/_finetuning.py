"""Intra-processing by training: what the debiasers that fine-tune all layers share."""

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, StrOptions
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Dataset

from skfair.base._net import EpochBar, TensorNet
from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._half import HalfAdam
from skfair.intraprocessing._inputs import Batch, Inputs, call
from skfair.intraprocessing._search import Search, named_parameters
from skfair.intraprocessing._soft_bias import SoftBias
from skfair.metrics._rates import CONSTRAINTS
from skfair.utils._random import generator

_MIN_STEPS = 10  # an epoch, so that small debiasing sets get enough of them


class TuningRows(NamedTuple):
    """What a loss of a :class:`FinetuningDebiaser` knows of the rows of a batch.

    A loss is a :class:`torch.nn.Module` whose ``forward(logit, rows)`` takes the logits of the
    network, a tensor of shape (n_rows,), and these rows, and returns the loss of the batch, a
    tensor without dimensions.

    Parameters
    ----------
    group : tensor of shape (n_rows,), int64
        Group of each row: its position among the sorted groups.
    label : tensor of shape (n_rows,), int64
        1 for the positive class, 0 for the other.
    weight : tensor of shape (n_rows,)
        How many rows of the population each one stands for. A batch has equally many rows of
        each cell (group and label); the weights give back the shares of the cells, so that the
        weighted mean over the batch estimates the mean over all rows.
    original : tensor of shape (n_rows,)
        Logit of the original network.

    Attributes
    ----------
    cell : tensor of shape (n_rows,), int64
        Group and label in one number: twice the group plus the label.

    Examples
    --------
    >>> import torch
    >>> from skfair.intraprocessing import TuningRows
    >>> class WeightedError(torch.nn.Module):
    ...     def forward(self, logit, rows):
    ...         wrong = torch.sigmoid(logit) - rows.label
    ...         return (rows.weight * wrong.square()).mean()
    >>> group, label = torch.tensor([[0, 0, 1], [1, 0, 1]])
    >>> rows = TuningRows(group, label, weight=torch.ones(3), original=torch.zeros(3))
    >>> WeightedError()(torch.zeros(3), rows), rows.cell
    (tensor(0.2500), tensor([1, 0, 3]))
    """

    group: torch.Tensor
    label: torch.Tensor
    weight: torch.Tensor
    original: torch.Tensor

    @property
    def cell(self) -> torch.Tensor:
        """Group and label in one number, twice the group plus the label; int64."""
        return 2 * self.group + self.label

    def take(self, rows: torch.Tensor) -> Self:
        """Take some of the rows.

        Parameters
        ----------
        rows : tensor of int64
            Positions of the rows.

        Returns
        -------
        TuningRows
            The same four tensors, for these rows.
        """
        return type(self)(*(tensor[rows] for tensor in self))


class TuningData(Dataset):
    """The rows that tune weights, indexed a batch at a time.

    Parameters
    ----------
    X : Inputs or tensor of shape (n_rows, ...)
        What the network takes.
    rows : TuningRows
        What the loss takes.
    """

    def __init__(self, X: Inputs | torch.Tensor, rows: TuningRows):
        self.X = X
        self.rows = rows

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: torch.Tensor) -> tuple[dict[str, Batch], TuningRows]:
        return {"X": self.X[index]}, self.rows.take(index)


class CellBatches:
    """Iterate over :class:`TuningData` in batches with equally many rows of each cell.

    A cell is a group and a label. No batch lacks a cell, so that a small group counts in each
    batch; the weights of the rows give back the shares of the cells in the population.

    Parameters
    ----------
    dataset : TuningData
        The rows that tune weights.
    batch_size : int
        Rows in a batch; a cell with fewer rows than its part gives all of them.
    shuffle : bool, default=True
        Accepted because skorch passes it; batches are always drawn anew.
    """

    def __init__(self, dataset: TuningData, batch_size: int, shuffle: bool = True):
        self.dataset = dataset
        self.batch_size = batch_size
        cell = dataset.rows.cell
        self.cells = [torch.nonzero(cell == c)[:, 0] for c in cell.unique()]
        self.share = min(max(1, batch_size // len(self.cells)), len(dataset))
        self.n_rows = sum(min(self.share, len(rows)) for rows in self.cells)

    def __len__(self) -> int:
        return max(_MIN_STEPS, -(-len(self.dataset) // self.batch_size))

    def __iter__(self) -> Iterator[tuple[dict[str, Batch], TuningRows]]:
        sizes = torch.tensor([len(rows) for rows in self.cells])
        drawn = sizes.clamp_max(self.share)
        # Of integers the ratio would have torch's default type.
        stands_for = sizes.float() / drawn * self.n_rows / len(self.dataset)
        stands_for = stands_for.repeat_interleave(drawn).to(self.dataset.rows.weight)
        own = generator()
        for _ in range(len(self)):
            rows = torch.cat(
                [
                    rows[torch.randperm(len(rows), generator=own)[: self.share].to(rows.device)]
                    for rows in self.cells
                ]
            )
            inputs, batch = self.dataset[rows]
            yield inputs, batch._replace(weight=batch.weight * stands_for)


class BatchNet(TensorNet):
    """skorch net whose loss judges a batch as a whole: ``criterion(logit, rows)``."""

    def get_loss(
        self, y_pred: Any, y_true: TuningRows, X: Any = None, training: bool = False
    ) -> Any:
        loss = self.criterion_(y_pred, y_true)
        if isinstance(loss, torch.Tensor) and loss.ndim > 0:
            raise ValueError(
                f"{type(self.criterion_).__name__} returns a loss of shape {tuple(loss.shape)}; "
                "expected one number for the batch. Return the mean, weighted by rows.weight."
            )
        return loss


class _Candidates(Callback):
    """Hand the network in after each epoch."""

    def __init__(self, search: Search):
        self.search = search

    def on_epoch_end(self, net, **kwargs):
        net.optimizer_.zero_grad()  # they take the memory of the network
        self.search.consider(candidate="fine-tuned", epoch=len(net.history))


@fill_docstring
class FinetuningDebiaser(IntraprocessingDebiaser):
    """Base of the debiasers that train all layers of the network with a loss of their own.

    Subclass it to write a method. A subclass writes ``_search(search)``, mostly one line:
    ``self._finetune(search, loss)``, where `loss` is a :class:`torch.nn.Module` whose
    ``forward(logit, rows)`` takes the logits of a batch and :class:`TuningRows`, and returns the
    loss of the batch. A skorch net trains the network with Adam, and after each epoch the network
    is a candidate. The rest is as in :class:`IntraprocessingDebiaser`.

    Parameters
    ----------
    {estimator}
    {constraint_by_name}
    {epsilon}
    {performance}
    {validation_fraction}
    {lr}
    {batch_size}
    {max_epochs}
    {confidence}
    {margin}
    {small_groups}
    {calibration_fraction}
    {output}
    {classes}
    {parameters}
    {device}
    {random_state}
        Seeds the split of the rows and the batches.
    {verbose}

    Attributes
    ----------
    {classes_}
    {n_features_in_}
    {module_}
    {threshold_}
    {bias_}
    {performance_}
    {objective_}
    {bias_interval_}
    {feasible_}
    {pairs_}
    {certificate_}
    {interrupted_}
    {trials_}
        Column "epoch" counts from 1.
    {best_trial_}
    {history_}

    Warns
    -----
    {LabelOrderWarning}
    {InfeasibleConstraintWarning}
    {FallbackWarning}
    {InterruptedSearchWarning}
    {OverfitWarning}
    {SmallGroupWarning}

    Examples
    --------
    A debiaser that fine-tunes by the squared error, every subgroup counting the same:

    {biased_network}
    >>> class SquaredError(torch.nn.Module):
    ...     def forward(self, logit, rows):
    ...         return (torch.sigmoid(logit) - rows.label).square().mean()
    >>> class BrierDebiaser(FinetuningDebiaser):
    ...     def _search(self, search):
    ...         self._finetune(search, SquaredError())
    >>> debiaser = BrierDebiaser(network, epsilon=0.1, max_epochs=2, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.trials_.candidate.tolist()
    ['original', 'threshold', 'fine-tuned', 'fine-tuned']
    """

    _parameter_constraints: dict = {
        **IntraprocessingDebiaser._parameter_constraints,
        "parameters": [str, list, tuple, None],
        # Not a callable: training needs to know how the constraint is made of rates.
        "constraint": [StrOptions(set(CONSTRAINTS))],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str = "demographic_parity",
        epsilon: float = 0.05,
        performance: str | Callable = "balanced_accuracy",
        validation_fraction: float = 0.3,
        lr: float = 1e-3,
        batch_size: int = 512,
        max_epochs: int = 24,
        confidence: float | Literal["auto"] | None = "auto",
        margin: float = 0.01,
        small_groups: Literal["shrink", "exclude", "error"] = "shrink",
        calibration_fraction: float = 0.5,
        output: Literal["auto", "logits", "probabilities"] = "auto",
        classes: ArrayLike | None = None,
        parameters: str | Sequence[str] | None = None,
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        super().__init__(
            estimator,
            constraint=constraint,
            epsilon=epsilon,
            performance=performance,
            confidence=confidence,
            margin=margin,
            small_groups=small_groups,
            calibration_fraction=calibration_fraction,
            output=output,
            classes=classes,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.parameters = parameters
        self.validation_fraction = validation_fraction
        self.lr = lr
        self.batch_size = batch_size
        self.max_epochs = max_epochs

    def _check_network(self, network: nn.Module, rows: Inputs) -> None:
        super()._check_network(network, rows)
        try:
            with torch.enable_grad():
                logit = call(network, rows[:2]).sum()
        except Exception as error:
            raise ValueError(
                "The network in estimator runs on X without gradients, but not with gradients "
                f"({type(error).__name__}: {error}). {type(self).__name__} trains the network: "
                "give one that runs with gradients, or use RandomPerturbationDebiaser."
            ) from error
        if not logit.requires_grad:
            raise ValueError(
                "The network in estimator returns outputs without gradients, as under "
                f"torch.no_grad() or after detach() in its forward, and {type(self).__name__} "
                "trains by gradients. Take that out of forward, or use RandomPerturbationDebiaser."
            )

    def _soft_bias(self, search: Search) -> SoftBias:
        """The soft bias around the threshold at which the original network performs best."""
        known = search.objective.take(search.tune).unconstrained()
        threshold = known.choose(search.scores[None, search.tune])[0].threshold[0]
        assert isinstance(self.constraint, str)  # a callable has no gradient
        return SoftBias(self.constraint, search.objective.n_groups, float(threshold))

    def _tuning_data(self, search: Search) -> TuningData:
        """The rows that tune weights, on the device of the search.

        Parameters
        ----------
        search : Search

        Returns
        -------
        TuningData
        """
        tune = torch.as_tensor(search.tune, device=search.device)
        group, label = (
            torch.as_tensor(each, dtype=torch.int64, device=search.device)[tune]
            for each in (search.group, search.label)
        )
        original = torch.as_tensor(search.scores, dtype=search.dtype, device=search.device)[tune]
        rows = TuningRows(group, label, torch.ones_like(original), original)
        return TuningData(search.X.take(search.tune), rows)

    def _finetune(
        self,
        search: Search,
        loss: nn.Module,
        *callbacks: Callback,
        data: TuningData | None = None,
        module: nn.Module | None = None,
        net: type[BatchNet] = BatchNet,
    ) -> None:
        """Train the network with a loss, and hand in a candidate after each epoch.

        The batches have equally many rows of each cell, see :class:`TuningRows`.

        Parameters
        ----------
        search : Search
        loss : torch.nn.Module
            ``forward(logit, rows)`` returns the loss of a batch.
        *callbacks : skorch.callbacks.Callback
            Of the skorch net.
        data : TuningData, optional
            What :meth:`_tuning_data` returned, if the method needed it before.
        module : torch.nn.Module, optional
            What is trained, if not ``search.network``; it shares the weights of that network.
        net : type, optional
            The skorch net.
        """
        if not isinstance(loss, nn.Module):
            raise TypeError(
                f"loss is a {type(loss).__name__}; expected a torch.nn.Module whose forward takes "
                "(logit, rows) and returns the loss of the batch. Put the function into forward."
            )
        if not named_parameters(module or search.network):
            raise ValueError(
                f"{type(self).__name__} leaves no parameter with requires_grad=True to train. Let "
                "_prepare add parameters, or freeze fewer."
            )
        self._train(
            net,
            module or search.network,
            loss,
            data or self._tuning_data(search),
            *callbacks,
            _Candidates(search),
            device=search.device,
            iterator_train=CellBatches,
            batch_size=self.batch_size,
        )

    def _train(
        self,
        net: type[TensorNet],
        module: nn.Module,
        criterion: Callable,
        data: Dataset,
        *callbacks: Callback,
        **parameters: Any,
    ) -> None:
        """Train with Adam, and keep the losses also of what was interrupted."""
        bar = [EpochBar(type(self).__name__)] if self.verbose else []
        net = net(
            module,
            criterion,
            lr=self.lr,
            max_epochs=self.max_epochs,
            optimizer=HalfAdam,
            optimizer__fused=True,
            callbacks=[*callbacks, *bar],
            **parameters,
        )
        try:
            net.fit(data, None)
        finally:
            # skorch nets and their callbacks refer to each other, so that they live on for a while.
            if net.initialized_:
                net.optimizer_.state.clear()
                net.optimizer_.zero_grad()
            # An epoch that was broken off has no loss.
            losses = [row["train_loss"] for row in net.history if "train_loss" in row]
            self.history_ = pd.DataFrame({"train_loss": losses}).rename_axis("epoch")
