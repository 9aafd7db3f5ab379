"""Memory and time of debiasing an MLP of 24 million parameters, with 2,000 rows.

Memory is the peak of the resident memory of the process above its size right before ``fit``,
divided by the size of the network. Before that, torch runs the network and makes an optimiser once:
what it imports and allocates at first is the same for any network. Time is the processor time of
``fit``, divided by that of one forward pass over the rows in batches, both on one thread; before
that, a network of one layer is fitted, because the first fit of a process imports modules.
"""

import ctypes
import itertools
import time
from functools import partial

import numpy as np
import torch
from torch import nn

import skfair
from benchmarks._large.rows import Run

N_ROWS, N_FEATURES = 2000, 512
DEBIASERS = {
    "ThresholdDebiaser": {},
    "RandomPerturbationDebiaser": {"n_trials": 101},
    "LayerwiseDebiaser": {},
    "DistillationDebiaser": {},
    "BiasGradientDebiaser": {},
    "AdversarialFinetuneDebiaser": {},
    "GroupDRODebiaser": {},
    "LinearPostDebiaser": {},
}
# Goals: models of memory, and forward passes.
GOALS = {
    "ThresholdDebiaser": ("<= 4", "<= 1.3"),
    "RandomPerturbationDebiaser": ("<= 6", "<= 110"),
    "DistillationDebiaser": ("<= 4", "<= 20"),
    "BiasGradientDebiaser": ("<= 4", ""),
    "AdversarialFinetuneDebiaser": ("<= 4", ""),
    "LinearPostDebiaser": ("<= 4", ""),
}


def task():
    """A network that knows the label and the group, and its debiasing rows."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    widths = [N_FEATURES, 4096, 4096, 1250]
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(widths[-1], 1)).eval()
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=(2, N_ROWS))
    X = rng.standard_normal((N_ROWS, N_FEATURES), dtype=np.float32)
    X[:, :5] += y[:, None] + group[:, None]
    # The last layer reads the label and the group out of the activations, as training would.
    with torch.no_grad():
        hidden = network[:-1](torch.from_numpy(X))
        wanted = torch.from_numpy(2.0 * y + group - 1.5).float()
        gram = hidden.T @ hidden + 10 * torch.eye(hidden.shape[1])
        network[-1].weight[0] = torch.linalg.solve(gram, hidden.T @ wanted)
        network[-1].bias.zero_()
    return network, X, y, group


def debiaser(name, network):
    parameters = {"output": "logits", "device": "cpu", "epsilon": 0.1, "random_state": 0}
    return getattr(skfair, name)(network, **parameters, **DEBIASERS[name])


def resident():
    """Resident memory of the process now, and its peak; MiB."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status if line.startswith(("VmRSS", "VmHWM")))
    return tuple(int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))


def costs(name):
    """Peak of the resident memory above the start, in models; time of ``fit`` in forward passes."""
    network, X, y, group = task()
    rows = torch.from_numpy(X)
    network(rows[:8])
    times = []
    for _ in range(3):
        start = time.process_time()
        with torch.inference_mode():
            for batch in rows.split(512):
                network(batch)
        times.append(time.process_time() - start)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)]).zero_grad()
    debiaser(name, nn.Linear(N_FEATURES, 1)).fit(X, y, sensitive_features=group)
    size = sum(parameter.nbytes for parameter in network.parameters()) / 2**20
    fitted = debiaser(name, network)
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")  # the peak starts again from here
    before, _ = resident()
    start = time.process_time()
    fitted.fit(X, y, sensitive_features=group)
    took = time.process_time() - start
    return (resident()[1] - before) / size, took / float(np.median(times))


def runs():
    network = "an MLP of 24.1 million parameters, 2,000 rows"
    found = []
    for name, settings in DEBIASERS.items():
        what = f"fit of {name}, {network}"
        if "n_trials" in settings:
            what += f", {settings['n_trials']} trials"
        in_memory, in_passes = GOALS.get(name, ("", ""))
        goals = {
            f"{what}: peak memory above the start, in models": in_memory,
            f"{what}: time, in forward passes": in_passes,
        }
        found.append(Run(goals, partial(costs, name)))
    return found
