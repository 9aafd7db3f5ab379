"""The measurements of hidden artefacts, in their order, and their tables and pictures.

Records are kept in the cache, so that a run that was stopped goes on. Records that depend on skfair
are measured again after a change of its code.
"""

import subprocess
import sys
import time
import warnings

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from sklearn.datasets import load_sample_images

from benchmarks._artefacts import DEVELOPMENT, REPORT
from benchmarks._faces import load_faces
from benchmarks._hiding import (
    ARMS,
    FEW_ARMS,
    PEERS,
    WITHOUT_COUNTER_EXAMPLES,
    Cell,
    digits,
    faces,
    judged,
    leakage,
    located_by_masker,
    located_by_peers,
    make_draw,
)
from benchmarks._masking import Split, measure, train
from benchmarks._peers import environments
from benchmarks._remember import Remembered, library_code, parsed, short_digest
from benchmarks._small_network import train_network
from benchmarks._tables import processor_time
from skfair.attribution import PatchAttributionMasker
from skfair.utils import FairnessWarning

ARTEFACTS = {
    "sticker": "sticker, anywhere",
    "ruler": "ruler, one place",
    "text": "faint text, anywhere",
}
OF_DEVELOPMENT = 100  # added to the seeds of development draws
N_CONFOUNDED = 4000  # faces that the masker is fitted on
# Each further entry adds one seed, so that a run that is stopped still has whole tables.
SPLITS = (
    ("eyeglasses", 0), ("smiling", 0), ("eyeglasses", 1), ("smiling", 1), ("eyeglasses", 2),
    ("eyeglasses", 3),
)  # fmt: skip
CONFOUNDER_ARMS = ("nothing hidden", "balanced data", "masker")


def cells(seeds):
    """Images, share, seed, artefact and arms of each draw, in the order in which they are run."""
    for seed in range(seeds):
        for artefact in ARTEFACTS:
            yield "faces", 0.95, seed, artefact, FEW_ARMS if seed else list(ARMS)
        for artefact in ARTEFACTS:
            yield "faces", 1.0, seed, artefact, WITHOUT_COUNTER_EXAMPLES
        if seed == 0:
            for artefact in ARTEFACTS:
                yield "digits", 0.95, seed, artefact, FEW_ARMS


class Results:
    """Records in memory and in the cache."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.remembered = Remembered(arguments.cache, "hiding")
        self.kind = "development" if arguments.development else "reported"
        ours = short_digest(
            *(
                parsed(f"benchmarks.{name}")[0]
                for name in (
                    "_hiding",
                    "_artefacts",
                    "_masking",
                    "_small_network",
                    "_peers.captum_worker",
                )
            )
        )
        self.digests = {
            False: ours, True: short_digest(ours, library_code("skfair.attribution._masker")),
        }  # fmt: skip

    def key(self, *names, library):
        return (*names, self.kind, self.digests[library])

    def get(self, *names, library):
        return self.remembered.records.get(self.key(*names, library=library))

    def measure(self, *names, library, how):
        """Measure a record that is missing, and print how long it took."""
        key = self.key(*names, library=library)
        if key in self.remembered.records or self.arguments.tables:
            return
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FairnessWarning)
            self.remembered.measured(key, how)
        seconds = time.process_time() - start
        print(f"  {names} ({seconds:.0f} s)", file=sys.stderr, flush=True)


class Run:
    """All records of planted artefacts."""

    def __init__(self, arguments):
        self.results = Results(arguments)
        self.data = arguments.data
        self.environments = arguments.environments
        self.seeds = arguments.seeds
        self.development = arguments.development
        self.images = {}

    def cell(self, images, share, seed, artefact):
        if images not in self.images:
            self.images[images] = (
                faces(self.data, self.development) if images == "faces" else digits()
            )
        known = DEVELOPMENT if self.development else REPORT
        seed += OF_DEVELOPMENT if self.development else 0
        return Cell(make_draw(self.images[images], known[artefact](), share, seed))

    def measure(self):
        for *where, arms in cells(self.seeds):
            cell = self.cell(*where)
            for arm in arms:
                self.results.measure(
                    "judged", *where, arm, library=ARMS[arm][1],
                    how=lambda cell=cell, arm=arm: judged(cell, arm),
                )  # fmt: skip
                # Resampling hides nothing. With a share of 1 only the masker measures leakage.
                if arm != "resampled" and (where[1] < 1 or arm.startswith("masker")):
                    self.results.measure(
                        "leakage", *where, arm, library=True,
                        how=lambda cell=cell, arm=arm: leakage(cell, arm),
                    )  # fmt: skip
            if where[:2] == ["faces", 0.95]:
                self.results.measure(
                    "peers",
                    *where,
                    library=False,
                    how=lambda cell=cell: located_by_peers(cell, self.environments),
                )
                self.results.measure(
                    "located", *where, library=True, how=lambda cell=cell: located_by_masker(cell)
                )

    def found(self, what, images, share, artefact, arm=None):
        """The records that exist, of all seeds."""
        if what in ("located", "leakage"):
            library = True
        else:
            library = ARMS[arm][1] if arm else False
        names = (artefact,) if arm is None else (artefact, arm)
        records = (
            self.results.get(what, images, share, seed, *names, library=library)
            for seed in range(self.seeds)
        )
        return [record for record in records if record is not None]


def spread(records, name):
    """Mean ± standard deviation; a dash if there are no values."""
    values = np.array([r[name] for r in records if name in r and r[name] is not None], float)
    values = values[~np.isnan(values)]
    if not len(values):
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def located_table(run, report):
    header = [
        "artefact, map",
        "AUROC",
        "IoU",
        "maximum inside",
        "ms an image",
        "AUC of images",
        "seeds",
    ]
    rows = []
    for artefact, title in ARTEFACTS.items():
        maps = {"masker": run.found("located", "faces", 0.95, artefact)}
        peers = run.found("peers", "faces", 0.95, artefact)
        maps |= {name: [record[name] for record in peers] for name in PEERS}
        for name, records in maps.items():
            if records:
                cells = [spread(records, c) for c in ("auroc", "iou", "inside")]
                ms = f"{np.median([r['ms'] for r in records]):.1f}"
                rows.append(
                    [f"{title}: {name}", *cells, ms, spread(records, "auc"), str(len(records))]
                )
    peer = environments.versions_of("captum")
    title = f"Where the artefact is: unseen faces that have it; all maps but the masker's by {peer}"
    report("located", title, header, rows)


def hiding_table(run, report, images, share):
    header = ["artefact, training", "clean", "swapped", "flips", "leakage", "seeds"]
    rows = []
    for artefact, title in ARTEFACTS.items():
        for arm in ARMS:
            records = run.found("judged", images, share, artefact, arm)
            if records:
                cells = [spread(records, c) for c in ("clean", "swapped", "flips")]
                leaks = spread(run.found("leakage", images, share, artefact, arm), "leakage")
                rows.append([f"{title}: {arm}", *cells, leaks, str(len(records))])
    title = (
        f"{images.capitalize()}, artefact in {share:.0%} of one class, {1 - share:.0%} of the other"
    )
    report(f"{images}_{share * 100:.0f}", title, header, rows)


def chosen_table(run, report):
    """The scope and the quantile that the defaults chose, by draw."""
    header = [
        "images, share, artefact",
        "scope",
        "quantile",
        "area hidden",
        "AUC of images",
        "informative",
    ]
    rows = []
    for images, share in (("faces", 0.95), ("faces", 1.0), ("digits", 0.95)):
        for artefact, title in ARTEFACTS.items():
            records = run.found("leakage", images, share, artefact, "masker")
            if records:
                rows.append(
                    [
                        f"{images}, {share:.0%}, {title}",
                        ", ".join(r["scope"] for r in records),
                        ", ".join(f"{r['quantile']:g}" for r in records),
                        spread(records, "area"), spread(records, "auc"),
                        f"{sum(r['informative'] for r in records)} of {len(records)}",
                    ]
                )  # fmt: skip
    report("chosen", "What the defaults chose, of each seed", header, rows)


def agreement_table(run, report):
    header = [
        "images, artefact", "settings", "rank correlation of leakage and swapped accuracy",
        "and flips",
        "no leak", "of these with flips above .15", "largest flips without a leak",
    ]  # fmt: skip

    def pairs(images, artefacts):
        for *where, arms in cells(run.seeds):
            if where[0] != images or where[1] != 0.95 or where[3] not in artefacts:
                continue
            for arm in arms:
                told = run.results.get("leakage", *where, arm, library=True)
                used = run.results.get("judged", *where, arm, library=ARMS[arm][1])
                if told is not None and used is not None:
                    yield told["leakage"], told["low"], used["swapped"], used["flips"]

    rows = []
    for images in ("faces", "digits"):
        for names, label in [([a], t) for a, t in ARTEFACTS.items()] + [(list(ARTEFACTS), "all")]:
            found = np.array(list(pairs(images, names)))
            if len(found) < 3:
                continue
            told, low, swapped, flips = found.T
            quiet = low <= 0.5
            most = f"{flips[quiet].max():.3f}" if quiet.any() else "-"
            rows.append(
                [
                    f"{images}, {label}", str(len(found)),
                    f"{spearmanr(told, swapped).statistic:.2f}",
                    f"{spearmanr(told, flips).statistic:.2f}",
                    str(quiet.sum()), str((quiet & (flips > 0.15)).sum()), most,
                ]
            )  # fmt: skip
    report("leakage", "Leakage against what a network learns, 95 %", header, rows)


# --- glasses and smiles


def confounded(data, name, fold, arm):
    """The measurement of the part "gap", with a masker at its defaults."""
    X, table = load_faces(data, 64)
    male, has = table["male"].to_numpy().astype(np.int64), table[name].to_numpy().astype(np.int64)
    split = Split(table, name, fold)
    rows = split.balanced if arm == "balanced data" else split.biased
    images = X[rows]
    more = {}
    if arm == "masker":
        some = np.random.default_rng(fold).permutation(split.rest)[:N_CONFOUNDED]
        masker = PatchAttributionMasker(random_state=fold)
        masker.fit(X[some], male[some], sensitive_features=has[some])
        images = masker.mask(images)
        more = {
            "leakage": masker.leakage_, "before": masker.leakage_before_, "scope": masker.scope_,
            "quantile": float(masker.quantile_),
        }  # fmt: skip
    network = train(images, male[rows], 0)
    found = measure(network, X[split.test], male[split.test], has[split.test])
    return {key: float(value) for key, value in found.items()} | more


def confounders(run):
    for name, fold in SPLITS:
        for arm in CONFOUNDER_ARMS:
            run.results.measure(
                "confounder", name, fold, arm, library=arm == "masker",
                how=lambda name=name, fold=fold, arm=arm: confounded(run.data, name, fold, arm),
            )  # fmt: skip


def confounder_table(run, report):
    header = [
        "confounder, training",
        "accuracy",
        "effect of the confounder",
        "gap",
        "leakage",
        "scope",
        "splits",
    ]
    rows = []
    for name in dict(SPLITS):
        found = {
            arm: [
                run.results.get("confounder", name, fold, arm, library=arm == "masker")
                for split, fold in SPLITS
                if split == name
            ]
            for arm in CONFOUNDER_ARMS
        }
        complete = [i for i, row in enumerate(zip(*found.values(), strict=True)) if None not in row]
        for arm, records in found.items():
            records = [records[i] for i in complete]
            if records:
                cells = [spread(records, c) for c in ("accuracy", "effect", "gap", "leakage")]
                scopes = ", ".join(r["scope"] for r in records if "scope" in r) or "-"
                rows.append([f"{name}: {arm}", *cells, scopes, str(len(records))])
    report("confounders", "Gender, and a confounder that is part of the face", header, rows)


# --- time and memory


def photographs(n, size, seed):
    """Random crops of the two photographs of scikit-learn, at random sizes, uint8."""
    rng = np.random.default_rng(seed)
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    X = np.empty((n, 3, size, size), dtype=np.uint8)
    for i, image in enumerate(X):
        source = sources[i % 2]
        side = int(rng.integers(size, 257))
        left, upper = (int(rng.integers(edge - side + 1)) for edge in source.size)
        box = left, upper, left + side, upper + side
        crop = source.resize((size, size), Image.Resampling.BOX, box=box)
        image[:] = np.asarray(crop)[:, :: rng.choice((-1, 1))].transpose(2, 0, 1)
    return X


def planted_photographs(name, n, size, seed):
    """Crops, every second one with the artefact, and whether each has it."""
    X = photographs(n, size, seed)
    has = np.random.default_rng(seed).permutation(n) % 2
    with_it, _ = REPORT[name](size).plant(X, np.random.default_rng(seed + 1))
    return np.where(has.astype(bool)[:, None, None, None], with_it, X), has


# Images are made in place, so that making them does not set the peak of memory.
MEMORY = """
import re, warnings, numpy as np, torch
from skfair.attribution import PatchAttributionMasker
torch.set_num_threads(1)
warnings.simplefilter("ignore")
def peak():
    # The ru_maxrss of a process begins with that of the one which started it.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
X = np.random.default_rng(0).integers(256, size=(400, 3, 224, 224), dtype=np.uint8)
has = np.arange(400) % 2
X[::2, :, 20:50, 30:60] = 230
masker = PatchAttributionMasker(
    max_epochs=1, attribution_batch_size={batch}, check_leakage=False, quantile=0.9, random_state=0
)
masker.fit(X[:40], sensitive_features=has[:40])
before = peak()
maps = masker.attribute(X)
print(peak() - before - maps.nbytes / 2**20)
"""


def memory_of(batch):
    """Megabytes."""
    code = MEMORY.format(batch=batch)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return {"memory": float(done.stdout)}


def cost_of(what):
    """Processor seconds of a fit, milliseconds of a map."""
    X, has = planted_photographs("sticker", 400, 224, 0)
    if what == "floor":
        return {"fit": processor_time(lambda: train_network(X, has, 0, epochs=1), n_repeats=3)}
    masker = PatchAttributionMasker(random_state=0)
    fit = processor_time(lambda: masker.fit(X, sensitive_features=has))
    maps = processor_time(lambda: masker.attribute(X[:100]), n_repeats=3)
    return {"fit": fit, "maps": 1000 * maps / 100}


BATCHES = (8, 32)


def costs(run):
    for what in ("floor", "masker"):
        run.results.measure(
            "cost", what, library=what != "floor", how=lambda what=what: cost_of(what)
        )
    for batch in BATCHES:
        run.results.measure("memory", batch, library=True, how=lambda batch=batch: memory_of(batch))


def cost_table(run, report):
    floor = run.results.get("cost", "floor", library=False)
    masker = run.results.get("cost", "masker", library=True)
    memory = [run.results.get("memory", batch, library=True) for batch in BATCHES]
    rows = []
    if floor and masker:
        rows += [
            ["one epoch of the small network", f"{floor['fit']:.1f} s", "1"],
            ["fit, with leakage", f"{masker['fit']:.1f} s", f"{masker['fit'] / floor['fit']:.1f}"],
            ["map of an image", f"{masker['maps']:.1f} ms", "-"],
        ]
    rows += [
        [f"maps, memory above a small fit and the maps, attribution_batch_size={batch}",
         f"{record['memory']:.0f} MB", "-"]
        for batch, record in zip(BATCHES, memory, strict=True) if record
    ]  # fmt: skip
    title = "400 images of 224 x 224 pixels, one thread, processor time"
    report("costs", title, ["what", "cost", "times the first"], rows)


# --- pictures

PICTURED = 96  # pixels
# How many photographs to fit on, and settings. With 600 the text is not found. With 2,000 leakage
# is not measured, to save time; therefore the quantile is given.
PICTURE_FITS = {
    "sticker": (600, {}), "ruler": (600, {}),
    "text": (2000, {"quantile": 0.95, "check_leakage": False}),
}  # fmt: skip


def pictures(folder):
    """For each artefact: photographs that no fit has seen, the maps, and the masked photographs."""
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for name, title in ARTEFACTS.items():
        n, parameters = PICTURE_FITS[name]
        X, has = planted_photographs(name, n, PICTURED, 0)
        masker = PatchAttributionMasker(random_state=0, **parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FairnessWarning)
            masker.fit(X, sensitive_features=has)
        X, has = planted_photographs(name, 12, PICTURED, 1)
        shown = np.concatenate([np.flatnonzero(has)[:4], np.flatnonzero(has == 0)[:1]])
        X = X[shown]
        maps, score, after = masker.attribute(X), masker.attribute_score(X), masker.mask(X)
        figure, axes = plt.subplots(3, len(X), figsize=(1.7 * len(X), 5.4), layout="constrained")
        for i, column in enumerate(axes.T):
            column[0].imshow(X[i].transpose(1, 2, 0))
            found = "" if score[i] >= masker.score_threshold_[0] else ", not found"
            column[0].set_title(f"score {score[i]:.2f}{found}", fontsize="small")
            drawn = column[1].imshow(maps[i], vmin=0, vmax=1, cmap="viridis")
            column[2].imshow(after[i].transpose(1, 2, 0))
        for ax, label in zip(axes[:, 0], ("before", "map", "after"), strict=True):
            ax.set_ylabel(label)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
        figure.colorbar(drawn, ax=axes[1], label="probability", shrink=0.9)
        figure.suptitle(title[0].upper() + title[1:], fontsize="medium")
        figure.savefig(folder / f"patch_attribution_hide_{name}.png", dpi=110)
        plt.close(figure)


def hiding(arguments, report):
    """Whether an artefact is found, and whether it is hidden."""
    torch.set_num_threads(1)
    run = Run(arguments)
    run.measure()
    if not arguments.development:
        costs(run)
        confounders(run)

    def write(name, *table):
        if table[-1]:  # rows
            report(arguments, f"hide_{name}", *table)

    located_table(run, write)
    for images, share in (("faces", 0.95), ("faces", 1.0), ("digits", 0.95)):
        hiding_table(run, write, images, share)
    chosen_table(run, write)
    agreement_table(run, write)
    confounder_table(run, write)
    cost_table(run, write)
    if arguments.write is not None and not arguments.tables:
        pictures(arguments.write.parent / "images")
