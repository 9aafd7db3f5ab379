"""Published methods as their authors describe them: baselines of accuracy and of speed.

Settings of the margin method: the best fixed ones known for these features (Adam at 1e-3, 40
epochs, batches of 256, s 8, sigma 0.15, gradient norm 0.25, weight decay of the amplifier 1; for
ten classes 40 clusters and weight decay 0.1), on raw features, with the epoch chosen on a fifth
of the training data by the mean accuracy over (class, cluster) cells, which needs no group labels.
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F


class Cosine(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_out, n_in)))

    def forward(self, x):
        return F.linear(F.normalize(x), F.normalize(self.weight))


def balanced_rows(codes, n, generator):
    """Row numbers drawn so that each class is equally likely."""
    share = 1 / torch.bincount(codes).double()[codes]
    return torch.multinomial(share, n, replacement=True, generator=generator)


def predictor(net):
    """A function from features to the classes that a network predicts."""

    def predict(X_new):
        with torch.no_grad():
            return net(torch.from_numpy(X_new)).argmax(1).numpy()

    return predict


def published(X, y, seed):
    """Fit the method; returns a function from features to predicted classes."""
    n_classes = y.max() + 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _published(X, y, seed, n_classes)


def _published(X, y, seed, n_classes):
    train, valid = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=seed)
    data, codes = torch.from_numpy(X[train]), torch.from_numpy(y[train])
    n, d = data.shape
    generator = torch.Generator().manual_seed(seed)

    adapter = nn.Sequential(nn.Linear(d, 128), nn.Tanh())
    amplifier = nn.Sequential(adapter, nn.Linear(128, n_classes))
    decay = 1.0 if n_classes < 10 else 0.1
    optimizer = torch.optim.Adam(amplifier.parameters(), lr=1e-3, weight_decay=decay)
    best = (-1.0, None)
    for _ in range(40):
        for rows in balanced_rows(codes, n, generator).split(256):
            optimizer.zero_grad()
            F.cross_entropy(amplifier(data[rows]), codes[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            right = amplifier(data).argmax(1) == codes
        accuracy = float(np.mean([right[codes == k].float().mean() for k in range(n_classes)]))
        if accuracy > best[0]:
            best = (accuracy, {k: v.clone() for k, v in amplifier.state_dict().items()})
    amplifier.load_state_dict(best[1])

    with torch.no_grad():
        features = F.normalize(adapter(torch.from_numpy(X))).numpy()
    kmeans = KMeans(40 if n_classes == 10 else 4, n_init=10, random_state=seed)
    clusters = kmeans.fit(features[train]).labels_
    counts = np.zeros((kmeans.n_clusters, n_classes))
    np.add.at(counts, (clusters, y[train]), 1)
    shares = torch.from_numpy((counts + 1e-6) / (counts.sum(1, keepdims=True) + 1e-6)).float()
    share = shares[torch.from_numpy(clusters).long()]
    cells = y[valid] * kmeans.n_clusters + kmeans.predict(features[valid])

    net = nn.Sequential(nn.Linear(d, 128), nn.ReLU(), Cosine(128, n_classes))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    held_out = torch.from_numpy(X[valid])
    best = (-1.0, None)
    for _ in range(40):
        for rows in torch.randperm(n, generator=generator).split(256):
            cosine = net(data[rows]).clamp(-1 + 1e-6, 1 - 1e-6)
            margin = 1 - (share[rows] + 0.15 * torch.randn(cosine.shape))
            wide = cosine * margin.cos() - (1 - cosine**2).sqrt() * margin.sin()
            guarded = cosine - margin * margin.sin()
            logits = 8 * torch.where(cosine > -margin.cos(), wide, guarded)
            optimizer.zero_grad()
            F.cross_entropy(logits, codes[rows]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.25)
            optimizer.step()
        with torch.no_grad():
            right = net(held_out).argmax(1).numpy() == y[valid]
        score = float(np.mean([right[cells == c].mean() for c in np.unique(cells)]))
        if score > best[0]:
            best = (score, {k: v.clone() for k, v in net.state_dict().items()})
    net.load_state_dict(best[1])

    return predictor(net)


def ordinary_training(X, y, seed):
    """Adapter and linear head, cross-entropy, 40 epochs, the best by hold-out accuracy kept."""
    n_classes = y.max() + 1
    train, valid = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        data, codes = torch.from_numpy(X[train]), torch.from_numpy(y[train])
        net = nn.Sequential(nn.Linear(data.shape[1], 128), nn.ReLU(), nn.Linear(128, n_classes))
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        held_out = torch.from_numpy(X[valid])
        best = (-1.0, None)
        for _ in range(40):
            for rows in torch.randperm(len(data)).split(256):
                optimizer.zero_grad()
                F.cross_entropy(net(data[rows]), codes[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                score = float((net(held_out).argmax(1).numpy() == y[valid]).mean())
            if score > best[0]:
                best = (score, {k: v.clone() for k, v in net.state_dict().items()})
        net.load_state_dict(best[1])

    return predictor(net)


def threshold_search(
    scores, y, group, measure, *, epsilon=0.05, margin=0.01, balanced_accuracy=None
):
    """The threshold search of Savani et al. (2020), with the work that the released code does.

    For each of 501 thresholds five bootstrap samples are drawn, and all six rates of the two groups
    are computed for each sample. The search maximises the mean of the balanced accuracies, where a
    sample whose bias is beyond the tolerance counts as zero.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        Probabilities of the positive class.
    y, group : ndarray of shape (n_samples,), of 0 and 1
        Labels, and groups: 0 is the unprivileged one.
    measure : {"demographic_parity", "equal_opportunity", "average_odds"}
        The bias.
    epsilon, margin : float
        The bias has to be smaller than ``epsilon - margin``.
    balanced_accuracy : callable, optional
        The released code uses scikit-learn's; plain NumPy if not given.

    Returns
    -------
    threshold, objective : float
    """
    rng = np.random.RandomState(0)
    best = (0.0, -1.0)
    for threshold in np.linspace(0, 1, 501):
        predicted = scores > threshold
        values = []
        for rows in rng.choice(len(y), (5, len(y))):
            p, labels, g = predicted[rows], y[rows], group[rows]
            selected, tpr, fpr = np.empty((3, 2))
            for code in (0, 1):
                selected[code] = mean_or_zero(p[g == code])
                tpr[code] = mean_or_zero(p[(g == code) & (labels == 1)])
                fpr[code] = mean_or_zero(p[(g == code) & (labels == 0)])
            rates = {
                "demographic_parity": selected,
                "equal_opportunity": tpr,
                "average_odds": (tpr + fpr) / 2,
            }[measure]
            if balanced_accuracy is None:
                accuracy = (p[labels == 1].mean() + 1 - p[labels == 0].mean()) / 2
            else:
                accuracy = balanced_accuracy(labels, p)
            values.append(accuracy if abs(rates[0] - rates[1]) < epsilon - margin else 0.0)
        if np.mean(values) > best[1]:
            best = (threshold, np.mean(values))
    return best


def mean_or_zero(values):
    return values.mean() if len(values) else 0.0
