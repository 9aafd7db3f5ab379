"""Intra-processing by adversaries: the critics, their training, and the losses with a critic."""

from typing import Any

import torch
from skorch.callbacks import Callback
from torch import nn

from skfair.intraprocessing._finetuning import BatchNet, CellBatches, TuningData, TuningRows
from skfair.intraprocessing._network import at_least_single
from skfair.intraprocessing._soft_bias import SoftBias
from skfair.metrics._rates import rate_names
from skfair.utils._random import generator, own_draws

_CRITIC_LR = 0.01
_N_PRETRAIN = 200  # steps of a critic before the network moves
_N_SETS, _SET_SIZE = 16, 128
_OFFSET = 1.0  # standard deviation of the logit offsets of a group in a set


class SetCritic(nn.Module):
    """Estimate the bias of a set of rows from the logit, the label and the group of each row.

    An embedding of the logits is averaged within each cell of group and label. The estimate
    therefore depends neither on the order of the rows nor on their number.

    Parameters
    ----------
    bias : SoftBias
        The bias to estimate.
    """

    def __init__(self, bias: SoftBias, width: int = 32, n_embedding: int = 8):
        super().__init__()
        self.threshold = bias.threshold
        self.n_cells = 2 * bias.n_groups
        self.embed = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, n_embedding))
        n_means = self.n_cells * n_embedding
        self.read = nn.Sequential(nn.Linear(n_means, width), nn.ReLU(), nn.Linear(width, 1))
        self.linear = nn.Linear(n_means, 1)

    def forward(self, logit: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """Estimate the bias of sets, shape (..., n_rows), as a tensor of shape (...)."""
        soft = torch.tanh(0.5 * (logit - self.threshold))
        member = nn.functional.one_hot(cell, self.n_cells).to(logit.dtype)
        sums = member.transpose(-1, -2) @ self.embed(soft[..., None])
        means = (sums / member.sum(-2)[..., None].clamp_min(1)).flatten(-2)
        return (self.read(means) + self.linear(means))[..., 0]


class FlatCritic(nn.Module):
    """The critic of Savani et al. 2020: a network on the hidden activations of a whole batch.

    The critic gets the activations of all rows in one vector (released code of arXiv 2006.08564).
    It sees neither labels nor groups, and learns one fixed order of rows.

    Parameters
    ----------
    n_hidden : int
        Units of the last hidden layer.
    n_rows : int
        Rows in a batch.
    """

    def __init__(self, n_hidden: int, n_rows: int):
        super().__init__()
        blocks = [nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.2)) for _ in range(3)]
        self.layers = nn.Sequential(nn.Linear(n_rows * n_hidden, 32), *blocks, nn.Linear(32, 1))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Estimate the bias of one batch, shape (n_rows, n_hidden)."""
        return self.layers(hidden.flatten())[0]


class CriticLoss(nn.Module):
    """Cross-entropy times one plus `penalty` times the bias that a critic estimates.

    Parameters
    ----------
    critic : SetCritic or FlatCritic
        The critic; this loss does not train it.
    penalty : float
        Lambda in Savani et al. 2020.
    """

    def __init__(self, critic: nn.Module, penalty: float):
        super().__init__()
        self._critic = [critic]  # hidden from skorch, which would train it with the network
        self.penalty = penalty

    def forward(self, output, rows):
        critic = self._critic[0]
        if isinstance(critic, FlatCritic):
            logit, hidden = output
            bias = critic(hidden)
        else:
            logit = output
            bias = critic(logit, rows.cell)
        return cross_entropy(logit, rows) * (1 + self.penalty * bias.abs())


def cross_entropy(logit: torch.Tensor, rows: TuningRows) -> torch.Tensor:
    """Weighted cross-entropy of the labels."""
    label = rows.label.to(logit.dtype)
    losses = nn.functional.binary_cross_entropy_with_logits(logit, label, reduction="none")
    return (rows.weight * losses).mean()


class TrainCritic(Callback):
    """Train a critic before the first update of the network, and again before each epoch.

    Parameters
    ----------
    critic : SetCritic or FlatCritic
        The critic.
    bias : SoftBias
        The bias to estimate.
    data : TuningData
        The tuning rows.
    batches : CellBatches
        Batches on which the network is trained.
    """

    def __init__(self, critic: nn.Module, bias: SoftBias, data: TuningData, batches: CellBatches):
        self.critic = critic
        self.bias = bias
        self.data = data
        self.batches = batches

    def initialize(self):
        self.optimizer_ = torch.optim.Adam(self.critic.parameters(), lr=_CRITIC_LR, fused=True)
        self.cell_ = self.data.rows.cell
        return self

    def on_epoch_begin(self, net, **kwargs):
        flat = isinstance(self.critic, FlatCritic)
        with torch.no_grad():
            output = _of_all(net.module_, self.data)
        first = len(net.history) == 1
        n_steps = _N_PRETRAIN if first else len(self.batches) // 2
        self.critic.train()
        for step in range(n_steps):
            if first:  # the learning rate falls to a tenth
                self.optimizer_.param_groups[0]["lr"] = _CRITIC_LR * (1 - 0.9 * step / n_steps)
            estimate, truth = self._flat(*output) if flat else self._sets(output)
            self.optimizer_.zero_grad()
            (estimate - truth).square().mean().backward()
            self.optimizer_.step()
        self.critic.eval()

    def _flat(self, logit: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.randint(len(logit), (self.batches.n_rows,), generator=generator())
        rows = rows.to(logit.device)
        weight = torch.ones_like(logit[rows])
        with own_draws():  # for the dropout of the critic
            estimate = self.critic(hidden[rows])
        return estimate, self.bias(logit[rows], self.cell_[rows], weight)

    def _sets(self, logit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        share, own = max(1, _SET_SIZE // len(self.batches.cells)), generator()
        rows = torch.cat(
            [
                cell[torch.randint(len(cell), (_N_SETS, share), generator=own).to(logit.device)]
                for cell in self.batches.cells
            ],
            dim=1,
        )
        sizes = logit.new_tensor([len(cell) for cell in self.batches.cells])
        weight = sizes.repeat_interleave(share).expand(_N_SETS, -1)
        # All batches of one network have nearly the same bias. The best estimate would then be a
        # constant, which has no gradient. Random shifts of the groups make the bias vary.
        offset = torch.randn(_N_SETS, self.bias.n_groups, generator=own).to(logit.device)
        moved = logit[rows] + _OFFSET * offset.gather(1, self.cell_[rows] // 2)
        return self.critic(moved, self.cell_[rows]), self.bias(moved, self.cell_[rows], weight)


def _of_all(module: nn.Module, data: TuningData) -> Any:
    """Run a network on all tuning rows, in batches; it returns a tensor or a tuple of them."""
    size = len(data) if isinstance(data.X, torch.Tensor) else data.X.rows_at_once
    starts = range(0, len(data), size)
    outs = [module(data.X[start : start + size]) for start in starts]
    if isinstance(outs[0], torch.Tensor):
        return torch.cat(outs)
    return tuple(torch.cat(parts) for parts in zip(*outs, strict=True))


class AttributeAdversary(nn.Module):
    """The adversary of Zhang et al. 2018: predict the group from the logit.

    For a constraint on rates given the label, the adversary also sees the label.

    Parameters
    ----------
    bias : SoftBias
        Gives the constraint, the number of groups and the threshold.
    spread : float
        Standard deviation of the original logits.
    """

    def __init__(self, bias: SoftBias, spread: float):
        super().__init__()
        self.threshold = bias.threshold
        self.spread = spread
        self.n_groups = bias.n_groups
        rates = rate_names(bias.constraint)
        self.sees_label = "selection" not in rates
        self.positives_only = rates == ["true_positive"]
        n_inputs = 3 if self.sees_label else 1
        self.layers = nn.Sequential(
            nn.Linear(n_inputs, 16), nn.ReLU(), nn.Linear(16, bias.n_groups)
        )

    def forward(self, logit: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """Compute the cross-entropy of the groups; all groups have the same weight."""
        soft = torch.tanh((logit - self.threshold) / self.spread)[:, None]
        label = (cell % 2).to(logit.dtype)
        if self.sees_label:
            one = label[:, None]
            soft = torch.cat([soft * one, soft * (1 - one), one], dim=1)
        group = cell // 2
        used = label if self.positives_only else torch.ones_like(label)
        sizes = torch.zeros(self.n_groups, device=logit.device, dtype=logit.dtype)
        sizes = sizes.index_add(0, group, used).clamp_min(1)
        losses = nn.functional.cross_entropy(self.layers(soft), group, reduction="none")
        return (used / sizes[group] * losses).sum() / len(sizes)


class AdversaryLoss(nn.Module):
    """The two losses of a network with an adversary: of the labels and of the groups.

    Parameters
    ----------
    adversary : AttributeAdversary
        The adversary; an optimiser of its own trains it along with the network.
    alpha : float
        Weight of the adversary's gradient, as in Zhang et al. 2018, equation 1.
    """

    def __init__(self, adversary: AttributeAdversary, alpha: float):
        super().__init__()
        self._adversary = [adversary]
        self.alpha = alpha
        self.optimizer = torch.optim.Adam(adversary.parameters(), lr=_CRITIC_LR, fused=True)

    @property
    def adversary(self) -> AttributeAdversary:
        return self._adversary[0]

    def forward(self, logit, rows):
        return cross_entropy(logit, rows), self.adversary(logit, rows.cell)


class ProjectedNet(BatchNet):
    """skorch net trained against an adversary (Zhang et al. 2018, equation 1).

    An update is the gradient of the task, minus its projection on the adversary's gradient, minus
    `alpha` times the adversary's gradient. Without the projection a step could help the adversary.
    """

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        inputs, labels = batch
        logit = self.infer(inputs, **fit_params)
        task, other = self.get_loss(logit, labels, training=True)
        criterion = self.criterion_
        weights = [p for p in self.module_.parameters() if p.requires_grad]
        own = list(criterion.adversary.parameters())
        wanted = torch.autograd.grad(task, weights, retain_graph=True, materialize_grads=True)
        against = torch.autograd.grad(other, weights + own, materialize_grads=True)
        # Squares of small gradients are zero in half precision.
        wanted, against = (tuple(map(at_least_single, each)) for each in (wanted, against))
        against, learn = against[: len(weights)], against[len(weights) :]
        along = sum((u * v).sum() for u, v in zip(wanted, against, strict=True))
        length = sum(v.square().sum() for v in against).clamp_min(1e-12)
        for weight, u, v in zip(weights, wanted, against, strict=True):
            # In the memory layout of the weight: otherwise fused Adam would mix up entries.
            weight.grad = torch.empty_like(weight).copy_(u - (along / length + criterion.alpha) * v)
        for weight, gradient in zip(own, learn, strict=True):
            weight.grad = gradient
        criterion.optimizer.step()
        return {"loss": task.detach(), "y_pred": logit}


class TrainAdversary(Callback):
    """Train the adversary alone before the first update of the network."""

    def __init__(self, data: TuningData):
        self.data = data

    def on_train_begin(self, net, **kwargs):
        with torch.no_grad():
            logit = _of_all(net.module_, self.data)
        criterion, cell = net.criterion_, self.data.rows.cell
        for _ in range(_N_PRETRAIN // 2):
            criterion.optimizer.zero_grad()
            criterion.adversary(logit, cell).backward()
            criterion.optimizer.step()
