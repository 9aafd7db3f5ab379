"""PatchAttributionMasker on real faces: where it looks, its calibration, and its worth.

    python -m benchmarks patch_attribution --data PATH --environments FOLDER  # two hours, two cores
    python -m benchmarks patch_attribution --data PATH --part where   # speed, memory, gap, networks
    python -m benchmarks patch_attribution --data PATH --part peers --environments FOLDER
    python -m benchmarks patch_attribution --data PATH --part hide --environments FOLDER  # an hour

Part ``hide`` plants artefacts into faces and digits, so that the true pixels are known. It measures
whether the masker finds them, whether a network learns them from the masked images, and whether
``leakage_`` says so; `_hiding.py` has the protocol. With ``--development`` it runs on the images
and artefacts that choices are made on. The parts ``peers`` and ``hide`` compare the maps with those
of captum, which runs in an environment of its own, in the folder of ``--environments``.

``--write FOLDER`` also stores the tables and, beside them in ``images``, the
pictures of the docs. Pictures show means over thousands of faces and no single one.
"""

import argparse
import functools
import itertools
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks._faces import load_faces
from benchmarks._hiding import PEERS, explained
from benchmarks._hiding_tables import hiding
from benchmarks._masking import CONFOUNDERS, TESTED, Split, matched_threshold, measure, train
from benchmarks._peers import environments
from benchmarks._remember import Remembered
from benchmarks._tables import Table, processor_time, publish, spelled
from skfair.attribution import PatchAttributionMasker
from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._grid import PatchGrid
from skfair.attribution._perturbation import hidden_pixels
from skfair.attribution._region_classifier import RegionClassifier
from skfair.attribution._region_networks import DenseRegionNet, ResNetRegionNet
from skfair.metrics import ReliabilityDisplay, expected_calibration_error

# Attributes, and the landmarks whose mean row is the middle of the band where they show.
BANDS = {
    "eyeglasses": ("left_eye_y", "right_eye_y"),
    "smiling": ("mouth_left_y", "mouth_right_y"),
    "male": None,
}
BAND = 16 / 128  # half its height, as a share of the image
GOALS = {"eyeglasses": 0.85, "smiling": 0.60}
# The defaults of former versions, with which the tables of all parts but "hide" were made.
FORMER = {
    "position_embedding": True, "confidence": "negative_entropy", "scope": "general", "margin": 0,
    "noise_std": 0.5, "check_leakage": False, "lr": 3e-3, "batch_size": 32,
}  # fmt: skip


def share_in_band(pixel_map, band):
    """Share of the top tenth of the pixels that lies in a band of rows."""
    if band is None:
        return np.nan
    top = pixel_map > np.quantile(pixel_map, 0.9)
    rows = np.arange(len(pixel_map)) + 0.5
    inside = np.abs(rows - band[0]) <= band[1]
    return top[inside].sum() / top.sum()


def look(X, table, attribute, seed, n_test=None, **parameters):
    """Fit on training faces; measure the maps and the probabilities on the test faces."""
    value = table[attribute].to_numpy()
    train = np.flatnonzero(table["split"] == "train")
    test = np.flatnonzero(table["split"] == "test")
    if n_test is not None:
        test = np.random.RandomState(0).permutation(test)[:n_test]
    start = time.process_time()
    masker = PatchAttributionMasker(random_state=seed, **(FORMER | parameters))
    masker.fit(X[train], sensitive_features=value[train])
    seconds = time.process_time() - start
    band = None
    if BANDS[attribute] is not None:
        rows = table.iloc[train][list(BANDS[attribute])].to_numpy()
        band = rows.mean(), BAND * X.shape[2]
    grid = PatchGrid(*X.shape[2:], masker.patch_size_, masker.stride_)
    record = {"seconds": seconds, "map": masker.mean_map_}
    proba = masker.region_proba(X[test])
    for name, confidence in CONFIDENCES.items():
        mean = confidence(torch.from_numpy(proba).movedim(3, 1)).mean(0)
        record[name] = share_in_band(grid.pixel_map(mean).numpy(), band)
    weight = 1 / np.bincount(value[test])[value[test]]
    hits = (proba.argmax(3) == value[test][:, None, None]).astype(float)
    accuracy = np.tensordot(weight / weight.sum(), hits, 1)
    record["best"], record["mean"] = accuracy.max(), accuracy.mean()
    record["y"] = np.repeat(value[test], len(grid))
    record["proba"] = proba.reshape(-1, 2)
    record["weight"] = np.repeat(weight, len(grid))
    record["ece"] = expected_calibration_error(
        record["y"], record["proba"], sample_weight=record["weight"]
    )
    return record


def mean_and_spread(values):
    values = np.asarray(values, float)
    if np.isnan(values).all():
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


LOOK_HEADER = [
    "attribute, network, image, patch, stride", "negative entropy", "top", "margin",
    "accuracy of a position: best", "mean", "calibration error", "processor s a fit",
]  # fmt: skip


def look_row(label, records):
    columns = ["negative_entropy", "top", "margin", "best", "mean", "ece"]
    cells = [mean_and_spread([record[c] for record in records]) for c in columns]
    return [label, *cells, f"{np.mean([r['seconds'] for r in records]):.0f}"]


def where(arguments):
    """Where the maps are high, and whether the probabilities are calibrated."""
    X, table = load_faces(arguments.data, 64)
    rows, shown = [], {}
    for attribute in BANDS:
        records = [
            look(X, table, attribute, seed, patch_size=16, stride=2, max_epochs=3)
            for seed in range(arguments.seeds)
        ]
        shown[attribute] = records
        rows.append(look_row(f"{attribute}, dense, 64, 16, 2", records))
    large = [look(*load_faces(arguments.data, 128), "eyeglasses", 0, stride=2, max_epochs=3)]
    rows.append(look_row("eyeglasses, dense, 128, 32, 2 (one seed)", large))
    title = (
        f"Share of the top tenth of the mean map in the band of the eyes (glasses) or the mouth "
        f"(smiling), and patches of the test faces; {arguments.seeds} seeds"
    )
    report(arguments, "where", title, LOOK_HEADER, rows)
    if arguments.write is not None:
        pictures(arguments, X, shown)


N_FITTED, N_SHOWN = 2_000, 200  # faces of the comparison with captum
PEERS_HEADER = [
    "attribute, map", "share, mean map", "share, own map", "AUC of images", "processor s a fit",
    "ms a map",
]  # fmt: skip


def bands_of(table, attribute):
    """The middle row of the band of each face."""
    return table[list(BANDS[attribute])].to_numpy().mean(1)


def maps_by_everybody(arguments, attribute, seed):
    """Records of the masker and of captum, on the same faces to fit on, to map and to score."""
    X, table = load_faces(arguments.data, 64)
    value = table[attribute].to_numpy().astype(np.int64)
    rng = np.random.default_rng(seed)
    parts = (table["split"] == "train", table["split"] == "test")
    rows, scored = (
        rng.permutation(np.flatnonzero(part))[:n]
        for part, n in zip(parts, (N_FITTED, N_SHOWN), strict=True)
    )
    # Of a face without glasses, a map cannot show where they are.
    shown = rng.permutation(np.flatnonzero(parts[1] & (value == 1)))[:N_SHOWN]
    start = time.process_time()
    # Leakage says nothing of maps, and without it the quantile cannot be chosen.
    masker = PatchAttributionMasker(check_leakage=False, quantile=0.9, random_state=seed)
    masker.fit(X[rows], sensitive_features=value[rows])
    fitted = time.process_time()
    maps = masker.attribute(X[shown])
    ms = 1000 * (time.process_time() - fitted) / N_SHOWN
    score = masker.attribute_score(X[scored])
    found = explained(
        X[rows], value[rows], seed, X[shown], X[scored], arguments.environments,
        target=np.ones(N_SHOWN, dtype=np.int64),
    )  # fmt: skip
    everybody = {"masker": (maps, fitted - start, ms, score)} | {
        name: (found[f"{name}, maps"], found["fit"], found[f"{name}, ms"], found["logits"])
        for name in PEERS
    }
    middles, height = bands_of(table.iloc[shown], attribute), BAND * X.shape[2]
    middle = bands_of(table.iloc[rows], attribute).mean()
    return {
        name: {
            "mean map": share_in_band(maps.mean(0), (middle, height)),
            "own map": float(
                np.mean([share_in_band(m, (y, height)) for m, y in zip(maps, middles, strict=True)])
            ),
            "auc": float(roc_auc_score(value[scored], score)), "fit": float(fit), "ms": float(ms),
        }
        for name, (maps, fit, ms, score) in everybody.items()
    }  # fmt: skip


def peers(arguments):
    """Where the attribute shows: the maps of the masker, and captum's of a whole-image network."""
    remembered = Remembered(arguments.cache, "maps")
    rows = []
    for attribute in ("eyeglasses", "smiling"):
        records = [
            remembered.measured(
                (attribute, seed),
                lambda attribute=attribute, seed=seed: maps_by_everybody(
                    arguments, attribute, seed
                ),
            )
            for seed in range(arguments.seeds)
        ]
        for name in records[0]:
            of_name = [record[name] for record in records]
            cells = [
                mean_and_spread([r[c] for r in of_name]) for c in ("mean map", "own map", "auc")
            ]
            fit, ms = (np.mean([r[c] for r in of_name]) for c in ("fit", "ms"))
            rows.append([f"{attribute}: {name}", *cells, f"{fit:.0f}", f"{ms:.1f}"])
    seeds = "1 seed" if arguments.seeds == 1 else f"{arguments.seeds} seeds"
    title = (
        f"Share of the top tenth of the map in the band of the eyes or the mouth, {N_SHOWN} test "
        f"faces that have the attribute, {seeds}; all maps but the masker's by "
        f"{environments.versions_of('captum')}"
    )
    report(arguments, "peers", title, PEERS_HEADER, rows)


def pictures(arguments, X, shown):
    """Mean maps over the mean face, and reliability diagrams."""
    from matplotlib import pyplot as plt

    face = X.mean(0).transpose(1, 2, 0).mean(2)
    figure, axes = plt.subplots(1, len(shown), figsize=(3 * len(shown), 3.2), layout="constrained")
    for ax, (attribute, records) in zip(axes, shown.items(), strict=True):
        ax.imshow(face, cmap="gray")
        drawn = ax.imshow(np.mean([r["map"] for r in records], 0), cmap="viridis", alpha=0.6)
        ax.set(title=attribute, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes, label="confidence, from 0 to 1", shrink=0.8)
    folder = arguments.write.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "patch_attribution_faces.png", dpi=120)
    figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
    for attribute, records in shown.items():
        ReliabilityDisplay.from_predictions(
            records[0]["y"], records[0]["proba"], sample_weight=records[0]["weight"],
            name=attribute, ax=ax,
        )  # fmt: skip
    figure.savefig(folder / "patch_attribution_reliability.png", dpi=120)


def report(arguments, name, title, header, rows, below=""):
    """Print a table, and put it into the folder of ``--write``."""
    table = Table(title, header, rows, below)
    seeds = spelled(range(arguments.seeds))
    publish(arguments.write, f"patch_attribution_{name}", table, seeds=seeds)


class PatchByPatch(torch.nn.Module):
    """A dense network that runs like any other network: on one patch after the other."""

    def __init__(self, network, stride=None):
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, patches, positions):
        if self.stride is None:
            return self.network(patches, positions)
        # The same operations as over a whole image.
        features = self.network._features(patches, self.stride)
        place = self.network.position.flatten(1)[:, positions].T[..., None, None]
        return self.network._classify(features, place)[..., 0, 0]


def loop(region_map, grid):
    """Algorithm 1 as it is printed."""
    total, count = np.zeros((grid.height, grid.width)), np.zeros((grid.height, grid.width))
    k = grid.patch_size
    for position in range(len(grid)):
        row, column = divmod(position, grid.n_cols)
        y, x = row * grid.stride, column * grid.stride
        total[y : y + k, x : x + k] += region_map[row, column]
        count[y : y + k, x : x + k] += 1
    return total / count


def speed(arguments):
    """Processor time of one image's map, at the published setting: 128 pixels, 2,401 patches."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    grid = PatchGrid(128, 128, 32, 2)
    dense = DenseRegionNet(3, 32, 2, (grid.n_rows, grid.n_cols))
    resnet = ResNetRegionNet(3, 32, 2, len(grid))
    images = torch.randn(32, 3, 128, 128)

    def run(network):
        return RegionClassifier(
            network, n_classes=[2], mean=torch.zeros(3), std=torch.ones(3), patch_size=32, stride=2
        ).eval()  # fmt: skip

    classifier = run(dense)
    batches = images.split(PatchAttributionMasker().attribution_batch_size)
    one_pass = processor_time(lambda: [classifier.logits(b) for b in batches], n_repeats=7)
    one_pass /= len(images)
    rows = [["dense network, one pass", f"{1000 * one_pass:.1f} ms", "1", "-"]]
    expected = run(dense).logits(images)[0]
    for label, network in {
        "the same network patch by patch": PatchByPatch(dense),
        "the same operations patch by patch": PatchByPatch(dense, stride=2),
    }.items():
        # Patches of all images together, which is faster than one image after the other.
        seconds = processor_time(run(network).logits, images, n_repeats=3) / len(images)
        difference = float((run(network).logits(images)[0] - expected).abs().max())
        rows.append(
            [label, f"{1000 * seconds:.0f} ms", f"{seconds / one_pass:.0f}", f"{difference:.0e}"]
        )
    seconds = processor_time(run(resnet).logits, images[:1])  # minutes for all of them
    rows.append(["ResNet-18 patch by patch", f"{seconds:.1f} s", f"{seconds / one_pass:.0f}", "-"])
    region_map = torch.randn(1, grid.n_rows, grid.n_cols, dtype=torch.float64)
    fast = (
        processor_time(lambda: [grid.pixel_map(region_map) for _ in range(100)], n_repeats=7) / 100
    )
    slow = processor_time(loop, region_map[0].numpy(), grid, n_repeats=7)
    difference = np.abs(
        loop(region_map[0].numpy(), grid) - grid.pixel_map(region_map)[0].numpy()
    ).max()
    rows.append(["Algorithm 1 as two products", f"{1000 * fast:.2f} ms", "1", "-"])
    rows.append(
        [
            "Algorithm 1 as a loop",
            f"{1000 * slow:.1f} ms",
            f"{slow / fast:.0f}",
            f"{difference:.0e}",
        ]
    )
    header = ["one image", "processor time", "times the first", "largest difference"]
    report(arguments, "speed", "Maps of 128 x 128 pixels, patches of 32, stride 2", header, rows)


def memory(arguments):
    """Memory above images and maps while maps are computed, each in a new process."""
    rows = []
    for n in (1_000, 10_000):
        for batch in (8, 32, 128):
            code = MEMORY.format(n=n, batch=batch)
            done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            rows.append([f"{n:,}", str(batch), f"{float(done.stdout):.0f} MB"])
    title = "Memory above the images and the result of region_map (128 pixels, stride 8)"
    report(arguments, "memory", title, ["images", "attribution_batch_size", "memory"], rows)


MEMORY = """
import resource, tempfile, numpy as np, torch
from skfair.attribution import PatchAttributionMasker
torch.set_num_threads(1)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rng = np.random.default_rng(0)
X = rng.integers(256, size=(40, 128, 128, 3), dtype=np.uint8)
masker = PatchAttributionMasker(
    32, stride=8, max_epochs=1, attribution_batch_size={batch}, check_leakage=False
)
masker.fit(X, sensitive_features=np.arange(40) % 2)
with tempfile.TemporaryFile() as file:
    images = np.memmap(file, np.uint8, "w+", shape=({n}, 128, 128, 3))
    before = peak()
    maps = masker.region_map(images)
    print(peak() - before - maps.nbytes / 2**20)
"""


def networks(arguments):
    """The dense and the published network on the same small grid, 8 of 32 pixels, stride 4."""
    X, table = load_faces(arguments.data, 32)
    grid = {"n_test": 300, "patch_size": 8, "stride": 4}
    published = {"batch_size": 256, "lr": 1e-3, "max_epochs": 9, "label_smoothing": 0.1}
    rows = []
    for label, n_seeds, parameters in (
        ("dense", arguments.seeds, {"max_epochs": 3}),
        ("ResNet-18", 1, {"region_classifier": "resnet18", **published}),
    ):
        seeds = range(n_seeds)
        records = [look(X, table, "eyeglasses", seed, **grid, **parameters) for seed in seeds]
        rows.append(look_row(f"eyeglasses, {label}, 32, 8, 4", records))
    title = f"The dense network, {arguments.seeds} seeds, and the published one, 9 epochs"
    report(arguments, "networks", title, LOOK_HEADER, rows)


QUANTILES = {"eyeglasses": (0.7, 0.9, 0.95), "smiling": (0.9,)}
MODES = list(itertools.product(("general", "specific"), ("mask", "noise")))


def names_of_arms(quantiles):
    """All ways to train: nothing hidden, balanced data, and the masks, by quantile."""
    hiding = [
        f"{kind}, {q}"
        for q in quantiles
        for kind in (*(" ".join(mode) for mode in MODES), "random mask")
    ]
    return ["nothing hidden", "balanced data", *hiding]


def hide(name, X, rows, masker):
    """The function that perturbs a batch in this way of training, and the pixels."""
    kind, q = name.split(", ")
    scope, perturbation = kind.split(" ")
    if scope != "random":
        masker.set_params(scope=scope, perturbation=perturbation, quantile=float(q))
        return masker.augmentation(), torch.from_numpy(masker.perturbed_pixels(X[rows]))
    masker.set_params(scope="general", perturbation=perturbation)
    grid = PatchGrid(*X.shape[2:], masker.patch_size_, masker.stride_)
    blobs = torch.randn(1, 1, grid.n_rows, grid.n_cols, generator=torch.Generator().manual_seed(0))
    hidden = hidden_pixels(grid.pixel_map(blobs), float(q), 0)[:, 0]
    return masker.augmentation(), hidden.expand(len(rows), -1, -1)


def train_all(data, confounder, fold, seed, wanted, cache):
    """Train in every way on one split, except for those in the cache."""
    torch.set_num_threads(1)
    remembered = Remembered(cache, "gap")
    keys = {name: (confounder, fold, seed, name) for name in wanted}
    if all(key in remembered.records for key in keys.values()):
        return [remembered.records[key] for key in keys.values()]
    X, table = load_faces(data, 64)
    male, has = table["male"].to_numpy().astype(int), table[confounder].to_numpy()
    split = Split(table, confounder, fold)
    masker = PatchAttributionMasker(patch_size=16, max_epochs=3, random_state=seed, **FORMER)
    masker.fit(X[split.rest], sensitive_features=has[split.rest])

    def train_one(name):
        rows = split.balanced if name == "balanced data" else split.biased
        how = hide(name, X, rows, masker) if ", " in name else (None, None)
        network = train(X[rows], male[rows], seed, *how)
        # A model that was trained on masked images may answer "male" too often for unmasked ones.
        matched = matched_threshold(network, X[rows], male[rows])
        record = {"arm": name, "fold": fold, "seed": seed}
        for part in ("validation", "test"):
            on = getattr(split, part)
            record[part] = measure(network, X[on], male[on], has[on])
            record[f"{part} matched"] = measure(network, X[on], male[on], has[on], matched)
            if name.startswith("general"):
                masked = masker.mask(X[on])
                record[f"{part} masked"] = measure(network, masked, male[on], has[on])
        return record

    return [
        remembered.measured(key, lambda name=name: train_one(name)) for name, key in keys.items()
    ]


def choose(records, measured):
    """The mode that measures least on validation faces, among those that lose at most .02 there."""

    def mean(arm, measure):
        return np.mean([r["validation"][measure] for r in records if r["arm"] == arm])

    floor = mean("nothing hidden", "accuracy") - 0.02
    modes = sorted({r["arm"] for r in records if r["arm"].startswith(("general", "specific"))})
    enough = [arm for arm in modes if mean(arm, "accuracy") >= floor]
    return min(enough or modes, key=lambda arm: abs(mean(arm, measured)))


GAP_HEADER = [
    "training", "accuracy", "men", "women", "gap", "effect of the confounder",
    "men without", "men with", "women without", "women with",
    "validation: accuracy", "gap", "effect",
]  # fmt: skip
GAP_MEASURES = [
    "accuracy", "men", "women", "gap", "effect",
    "male without", "male with", "female without", "female with",
]  # fmt: skip
WAYS = {"": "", " matched": ", threshold matched", " masked": ", masked at prediction too"}


def gap_rows(records, chosen, ways):
    for arm in dict.fromkeys(r["arm"] for r in records):
        for way in ways:
            found = [r for r in records if r["arm"] == arm and f"test{way}" in r]
            if not found:
                continue
            label = arm + WAYS[way]
            if arm in chosen and not way:
                label = f"**{label}** (chosen by {' and '.join(chosen[arm])})"
            cells = [mean_and_spread([r[f"test{way}"][c] for r in found]) for c in GAP_MEASURES]
            cells += [
                f"{np.mean([r[f'validation{way}'][c] for r in found]):.3f}"
                for c in ("accuracy", "gap", "effect")
            ]
            yield [label, *cells]


def verdict(records, chosen, way):
    """The share of the gap that is closed, with the standard error over draws."""
    draws = sorted({(str(r["fold"]), r["seed"]) for r in records})
    test = {(r["arm"], str(r["fold"]), r["seed"]): r[f"test{way}"] for r in records}

    def each(arm, measure):
        # Seeds of one split are averaged first, because they are tested on the same faces.
        values = np.array([test[arm, *draw][measure] for draw in draws])
        folds = [fold for fold, _ in draws]
        if len(set(folds)) == 1:
            return values
        return np.array([values[[f == fold for f in folds]].mean() for fold in sorted(set(folds))])

    def difference(arm, measure):
        d = each(arm, measure) - each("nothing hidden", measure)
        return f"{d.mean():+.3f} (standard error {d.std(ddof=1) / np.sqrt(len(d)):.3f})"

    none = each("nothing hidden", "gap").mean()
    closed = none - each(chosen, "gap").mean()
    by_balance = none - each("balanced data", "gap").mean()
    share = f": {closed / by_balance:.2f} of it" if by_balance > 0 else ""
    return (
        f"Against nothing hidden{WAYS[way]}: gap {difference(chosen, 'gap')} with ``{chosen}``, "
        f"{difference('balanced data', 'gap')} with balanced data{share}. Accuracy "
        f"{difference(chosen, 'accuracy')}, of men {difference(chosen, 'men')}, of women "
        f"{difference(chosen, 'women')}. Effect of the confounder {difference(chosen, 'effect')}, "
        f"with balanced data {difference('balanced data', 'effect')}.\n\n"
    )


def gap(arguments):
    """The effect of hiding the confounder on a model of gender."""
    parallel = joblib.Parallel(n_jobs=arguments.jobs)

    def run(confounder, draws, wanted):
        job = functools.partial(joblib.delayed(train_all), arguments.data, confounder)
        return list(
            itertools.chain(*parallel(job(*draw, wanted, arguments.cache) for draw in draws))
        )

    def show(confounder, name, title, records, chosen, ways, below=""):
        title = f"Gender, confounder {confounder}: {title}"
        rows = list(gap_rows(records, chosen, ways))
        report(arguments, f"gap_{confounder}_{name}", title, GAP_HEADER, rows, below)

    for confounder in CONFOUNDERS:
        folds = TESTED[confounder]
        everything = names_of_arms(QUANTILES[confounder])
        records = run(confounder, [(fold, 0) for fold in folds], everything)
        chosen = {}
        for measured in ("gap", "effect"):
            chosen.setdefault(choose(records, measured), []).append(measured)
        title = f"all modes, {len(folds)} splits"
        show(confounder, "modes", title, records, chosen, ["", " masked"])
        random = [f"random mask, {arm.split(', ')[1]}" for arm in chosen]
        compared = (*everything[:2], *chosen, *random)
        wanted = [name for name in everything if name in compared]
        tables = {
            "chosen": (f"{len(folds)} splits", folds, range(1)),
            "official": (
                f"official split, {arguments.seeds} seeds",
                [None],
                range(arguments.seeds),
            ),
        }
        for name, (title, folds, seeds) in tables.items():
            records = run(confounder, [(fold, seed) for seed in seeds for fold in folds], wanted)
            below = "".join(
                verdict(records, arm, way) for arm in chosen for way in ("", " matched")
            )
            show(confounder, name, title, records, chosen, WAYS, below)


PARTS = {
    "speed": speed, "memory": memory, "where": where, "gap": gap, "networks": networks,
    "peers": peers, "hide": functools.partial(hiding, report=report),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds images/")
    parser.add_argument("--part", choices=PARTS, help="only this part")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="processes that train side by side")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="of results, to go on from")
    parser.add_argument(
        "--development", action="store_true", help="part hide: images and artefacts for choices"
    )
    parser.add_argument("--tables", action="store_true", help="part hide: of the cache alone")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="store the tables there")
    parser.add_argument("--environments", type=Path, metavar="FOLDER", help="of captum")
    arguments = parser.parse_args()
    if arguments.part in (None, "peers", "hide") and not (
        arguments.environments or arguments.tables
    ):
        parser.error("--environments is needed")
    for name, part in PARTS.items():
        if arguments.part in (None, name):
            part(arguments)
