"""Intra-processing by training: what the debiasers that fine-tune all layers share."""

from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, StrOptions
from skorch.callbacks import Callback
from torch import nn

from skfair.base._net import EpochBar, TensorData, TensorNet
from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._search import Search
from skfair.intraprocessing._soft_bias import SoftBias
from skfair.metrics._rates import CONSTRAINTS
from skfair.utils._random import generator

_MIN_STEPS = 10  # an epoch, so that small debiasing sets get enough of them


class CellBatches:
    """Iterate over :class:`TensorData` in batches with as many rows of each cell as of any other.

    A cell is a group and a label. No batch lacks one, and a small group is heard in each; the
    weights of the rows give back their shares of the population.

    Parameters
    ----------
    dataset : TensorData
        With a target ``cell`` in its last column.
    batch_size : int
        Rows in a batch; a cell that has fewer than its part gives all of them.
    shuffle : bool, default=True
        Taken for skorch's sake; batches are always drawn anew.
    """

    def __init__(self, dataset: TensorData, batch_size: int, shuffle: bool = True):
        self.dataset = dataset
        self.batch_size = batch_size
        cell = dataset.target[:, -1].long()
        self.cells = [torch.nonzero(cell == c)[:, 0] for c in cell.unique()]
        self.share = min(max(1, batch_size // len(self.cells)), len(dataset))
        self.n_rows = sum(min(self.share, len(rows)) for rows in self.cells)

    def __len__(self) -> int:
        return max(_MIN_STEPS, -(-len(self.dataset) // self.batch_size))

    def __iter__(self) -> Iterator:
        sizes = torch.tensor([len(rows) for rows in self.cells])
        drawn = sizes.clamp_max(self.share)
        # Of integers the ratio would have torch's default type.
        stands_for = sizes.float() / drawn * self.n_rows / len(self.dataset)
        stands_for = stands_for.repeat_interleave(drawn).to(self.dataset.target)
        own = generator()
        for _ in range(len(self)):
            rows = torch.cat(
                [
                    rows[torch.randperm(len(rows), generator=own)[: self.share].to(rows.device)]
                    for rows in self.cells
                ]
            )
            inputs, (target, weight) = self.dataset[rows]
            yield inputs, (target, weight * stands_for)


class BatchNet(TensorNet):
    """skorch net whose criterion judges a batch as a whole, its weights included."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return self.criterion_(y_pred, *y_true)


class _Candidates(Callback):
    """Hand the network in after each epoch."""

    def __init__(self, search: Search):
        self.search = search

    def on_epoch_end(self, net, **kwargs):
        self.search.consider(candidate="fine-tuned", epoch=len(net.history))


class FinetuningDebiaser(IntraprocessingDebiaser):
    """Base of the debiasers that train all layers of the copy in a skorch net."""

    _parameter_constraints: dict = {
        **IntraprocessingDebiaser._parameter_constraints,
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
        self.validation_fraction = validation_fraction
        self.lr = lr
        self.batch_size = batch_size
        self.max_epochs = max_epochs

    def _check_weights(self, network: nn.Module, rows: torch.Tensor) -> None:
        super()._check_weights(network, rows)
        try:
            with torch.enable_grad():
                logit = network(rows[:2]).sum()
        except Exception as error:
            raise ValueError(
                f"The network in estimator runs on X without gradients, and with them it does not "
                f"({type(error).__name__}: {error}). {type(self).__name__} trains it: give one "
                "that runs in training, or use RandomPerturbationDebiaser."
            ) from error
        if not logit.requires_grad:
            raise ValueError(
                "estimator puts out values without gradients, as under torch.no_grad() or after "
                f"detach() in its forward, and {type(self).__name__} trains by gradients. Take "
                "that out of forward, or use RandomPerturbationDebiaser."
            )

    def _soft_bias(self, search: Search) -> SoftBias:
        """The soft bias around the threshold at which the original network performs best."""
        known = search.objective.take(search.tune).unconstrained()
        threshold = known.choose(search.scores[None, search.tune])[0].threshold[0]
        assert isinstance(self.constraint, str)  # a callable has no gradient
        return SoftBias(self.constraint, search.objective.n_groups, float(threshold))

    def _tuning_data(self, search: Search) -> TensorData:
        """The tuning rows; a target has the logit of the original network, and the cell."""
        rows = torch.as_tensor(search.tune, device=search.device)
        target = np.column_stack([search.scores, search.objective.cell])[search.tune]
        target = torch.as_tensor(target, dtype=search.dtype, device=search.device)
        return TensorData(target, X=search.X[rows])

    def _train_in_cells(
        self,
        search: Search,
        data: TensorData,
        criterion: nn.Module,
        *callbacks: Callback,
        module: nn.Module | None = None,
        net: type[BatchNet] = BatchNet,
    ) -> None:
        """Train in batches of equal cells, and hand the network in after each epoch."""
        self._train(
            net,
            module or search.network,
            criterion,
            data,
            *callbacks,
            _Candidates(search),
            iterator_train=CellBatches,
            batch_size=self.batch_size,
        )

    def _train(
        self,
        net: type[TensorNet],
        module: nn.Module,
        criterion: Callable,
        data: TensorData,
        *callbacks: Callback,
        **parameters: Any,
    ) -> None:
        """Train with Adam where the data are, and keep the losses also of what was interrupted."""
        bar = [EpochBar(type(self).__name__)] if self.verbose else []
        net = net(
            module,
            criterion,
            lr=self.lr,
            max_epochs=self.max_epochs,
            optimizer=torch.optim.Adam,
            optimizer__fused=True,
            callbacks=[*callbacks, *bar],
            device=data.target.device,
            **parameters,
        )
        try:
            net.fit(data, None)
        finally:
            # An epoch that was broken off has no loss.
            losses = [row["train_loss"] for row in net.history if "train_loss" in row]
            self.history_ = pd.DataFrame({"train_loss": losses}).rename_axis("epoch")
