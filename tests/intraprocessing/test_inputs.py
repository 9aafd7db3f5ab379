"""X of any kind: the debiasers give each row to the network as the user would."""

import types
import warnings
from collections import UserDict

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from skorch.helper import SliceDict
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
)

import skfair
from skfair.intraprocessing import (
    AdversarialFinetuneDebiaser,
    BiasGradientDebiaser,
    DistillationDebiaser,
    GroupDRODebiaser,
    LayerwiseDebiaser,
    LinearPostDebiaser,
    RandomPerturbationDebiaser,
    ThresholdDebiaser,
    _inputs,
)
from skfair.utils import FallbackWarning, InfeasibleConstraintWarning, OverfitWarning

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::skfair.utils.{kind.__name__}")
    for kind in (FallbackWarning, InfeasibleConstraintWarning, OverfitWarning)
]

N, LENGTH, WORDS = 240, 5, 600
RNG = np.random.default_rng(0)
IDS = RNG.integers(WORDS, size=(N, LENGTH))
MASK = (np.arange(LENGTH) < RNG.integers(1, LENGTH + 1, size=(N, 1))).astype(np.int64)
GROUP = RNG.integers(2, size=N)
TEXT = {"ids": IDS, "mask": MASK}


class Words(nn.Module):
    """The logits are the mean of the words' vectors under the mask, times a matrix."""

    def __init__(self, answer="tensor"):
        super().__init__()
        self.embed, self.last, self.answer = nn.Embedding(WORDS, 4), nn.Linear(4, 2), answer

    def forward(self, ids, mask=None):
        mask = torch.ones_like(ids) if mask is None else mask
        mask = mask[..., None].to(self.embed.weight.dtype)
        logits = self.last((self.embed(ids) * mask).sum(1) / mask.sum(1))
        if self.answer == "attribute":
            return types.SimpleNamespace(logits=logits, hidden=mask)
        if self.answer == "item":
            return {"hidden": mask, "logits": logits}
        return (logits, mask) if self.answer == "first" else logits


def words(answer="tensor"):
    torch.manual_seed(0)
    network = Words(answer)
    with torch.no_grad():
        network.embed.weight.mul_(3)
    return network


def margins(network=None, ids=IDS, mask=MASK):
    """Logit of the second class less that of the first, by the network itself."""
    with torch.no_grad():
        raw = (network or words())(torch.as_tensor(ids), torch.as_tensor(mask))
    return (raw[:, 1] - raw[:, 0]).float().numpy()


Y = (margins() + 0.8 * RNG.normal(size=N) + 0.8 * GROUP > 0.4).astype(int)


def fit(X=TEXT, y=Y, groups=GROUP, *, network=None, kind=ThresholdDebiaser, **parameters):
    debiaser = kind(network or words(), epsilon=0.3, random_state=0, **parameters)
    return debiaser.fit(X, y, sensitive_features=groups)


class Items(Dataset):
    """A dataset of dicts; `change` changes an item."""

    def __init__(self, change=lambda row, item: item):
        self.change = change

    def __len__(self):
        return N

    def __getitem__(self, row):
        return self.change(row, {"ids": torch.tensor(IDS[row]), "mask": MASK[row]})


def loader(*, shuffle=False, parts=3):
    rows = [({"ids": IDS[i], "mask": MASK[i]}, Y[i], GROUP[i])[:parts] for i in range(N)]
    rows = [row[0] for row in rows] if parts == 1 else rows
    return DataLoader(rows, batch_size=50, shuffle=shuffle)


FORMS = {
    "dict": lambda: TEXT,
    "dict of lists": lambda: {name: part.tolist() for name, part in TEXT.items()},
    "dict of tensors": lambda: {name: torch.tensor(part) for name, part in TEXT.items()},
    "mapping": lambda: UserDict(TEXT),  # as BatchEncoding of transformers is
    "SliceDict": lambda: SliceDict(**TEXT),
    "tuple": lambda: (IDS, MASK),
    "dataset": Items,
    "dataset of tuples": lambda: Items(lambda row, item: (item, "its label")),
    "loader": lambda: loader(parts=1),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_the_same_rows_give_the_same_network(form):
    expected = fit()
    found = fit(FORMS[form]())
    assert found.threshold_ == expected.threshold_
    assert found.trials_.equals(expected.trials_)
    decision = found.decision_function(FORMS[form]())
    np.testing.assert_array_equal(decision, expected.decision_function(TEXT))
    np.testing.assert_allclose(decision + found.threshold_, margins(), atol=1e-5)


KINDS = [
    (ThresholdDebiaser, {}),
    (RandomPerturbationDebiaser, {"n_trials": 3}),
    (LayerwiseDebiaser, {"n_calls": 2, "n_layers": 2}),
    (DistillationDebiaser, {"max_epochs": 1}),
    (BiasGradientDebiaser, {"max_epochs": 1}),
    (GroupDRODebiaser, {"max_epochs": 1}),
    (AdversarialFinetuneDebiaser, {"max_epochs": 1}),
    (AdversarialFinetuneDebiaser, {"max_epochs": 1, "critic": "flat"}),
    (LinearPostDebiaser, {"group_features": "network"}),
]


class Packed(nn.Module):
    """The same network for one array of floating numbers: ids, then the mask."""

    def __init__(self):
        super().__init__()
        self.words = words()

    def forward(self, X):
        return self.words(X[:, :LENGTH].long(), X[:, LENGTH:].long())


@pytest.mark.parametrize("kind, parameters", KINDS)
def test_each_debiaser_does_the_same_as_with_one_array(kind, parameters):
    debiaser = fit(network=words("attribute"), kind=kind, **parameters)
    X = np.hstack([IDS, MASK]).astype(np.float32)
    expected = fit(X, network=Packed(), kind=kind, **parameters)
    columns = ["bias", "performance"]
    found = debiaser.trials_[columns].to_numpy(float)
    np.testing.assert_allclose(found, expected.trials_[columns].to_numpy(float), atol=1e-4)
    decision = debiaser.decision_function(TEXT)
    np.testing.assert_allclose(decision, expected.decision_function(X), atol=1e-4)
    batch = {name: torch.tensor(part) for name, part in TEXT.items()}
    for module in (debiaser.module_, debiaser.to_module()):
        raw = module(**batch).detach()
        np.testing.assert_allclose(torch.softmax(raw, 1), debiaser.predict_proba(TEXT), atol=1e-5)


@pytest.mark.parametrize("form", ["dict", "tuple"])
@pytest.mark.parametrize("answer", ["tensor", "attribute", "item", "first"])
def test_answers_of_a_network(answer, form):
    debiaser = fit(FORMS[form](), network=words(answer))
    np.testing.assert_array_equal(debiaser.predict(FORMS[form]()), fit().predict(TEXT))
    assert type(debiaser.module_(torch.tensor(IDS), torch.tensor(MASK))) is torch.Tensor
    exported = debiaser.to_module()
    assert not any(type(part).__module__.startswith("skfair") for part in exported.modules())


class Answers(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))

    def forward(self, X):
        return types.SimpleNamespace(logits=self.network(X))


@pytest.mark.parametrize("group_features", ["input", "network"])
def test_a_head_beside_a_network_of_one_array_that_answers_with_an_object(group_features, tmp_path):
    torch.manual_seed(0)
    X = np.column_stack([Y + 0.5 * np.random.default_rng(1).normal(size=N), GROUP]).astype(
        np.float32
    )
    kind, parameters = LinearPostDebiaser, {"group_features": group_features}
    debiaser = fit(X, network=Answers(), kind=kind, **parameters)
    assert debiaser.group_features_ == group_features
    exported = torch.softmax(debiaser.to_module()(torch.tensor(X)), 1).detach()
    np.testing.assert_allclose(exported, debiaser.predict_proba(X), atol=1e-5)
    skfair.save(debiaser, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories=Answers)
    np.testing.assert_array_equal(loaded.predict_proba(X), debiaser.predict_proba(X))


# Numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("X", [IDS, TEXT], ids=["array", "dict"])
def test_ids_reach_a_network_in_half_precision_unrounded(X):
    network = words().bfloat16()  # it holds no integer above 256 that is odd
    mask = MASK if X is TEXT else np.ones_like(MASK)
    expected = balanced_accuracy_score(Y, margins(network, mask=mask) > 0)
    assert fit(X, network=network).trials_.performance[0] == pytest.approx(expected, abs=1e-12)


def perceptron():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_whole_numbers_reach_a_network_of_floating_ones_as_floating_ones(dtype):
    table = np.random.default_rng(1).integers(0, 200, size=(N, 3)).astype(dtype)
    found = fit(table, network=perceptron(), kind=DistillationDebiaser, max_epochs=2)
    X = table.astype(np.float32)
    expected = fit(X, network=perceptron(), kind=DistillationDebiaser, max_epochs=2)
    assert found.trials_.equals(expected.trials_)
    np.testing.assert_array_equal(found.decision_function(table), expected.decision_function(X))


@pytest.mark.parametrize("dtype, number", [(torch.float32, 2**24 + 1), (torch.bfloat16, 257)])
def test_a_cast_that_loses_a_whole_number_is_refused(dtype, number):
    table = np.random.default_rng(1).integers(0, 100, size=(N, 3))
    network = perceptron().to(dtype)
    fit(table, network=network)
    table[7, 1] = number
    with pytest.raises(ValueError, match=rf"X holds integers that {dtype} .*{number} in row 7"):
        fit(table, network=network)
    fit(table.astype(float), network=network)  # rounding was asked for


def test_rows_that_do_not_fit_on_the_device_go_there_batch_by_batch(monkeypatch):
    parameters = {"kind": AdversarialFinetuneDebiaser, "max_epochs": 2}
    expected = fit(**parameters)
    monkeypatch.setattr(_inputs, "_HELD_BYTES", 0)
    monkeypatch.setattr(_inputs, "rows_at_once", lambda n_numbers: 37)
    found = fit(**parameters)
    np.testing.assert_allclose(
        found.decision_function(TEXT), expected.decision_function(TEXT), atol=1e-3
    )


# Other forms --------------------------------------------------------------------------------


def test_a_loader_of_rows_labels_and_groups():
    expected = fit()
    found = ThresholdDebiaser(words(), epsilon=0.3, random_state=0).fit(loader())
    assert found.trials_.equals(expected.trials_)
    shuffled = ThresholdDebiaser(words(), epsilon=0.3, random_state=0).fit(loader(shuffle=True))
    # In another order, the same rows with their own labels and groups.
    columns = ["bias", "performance"]
    np.testing.assert_allclose(
        shuffled.trials_.loc[0, columns].astype(float),
        expected.trials_.loc[0, columns].astype(float),
        atol=1e-12,
    )


def test_labels_and_groups_of_a_loader_may_be_text():
    names, groups = np.array(["no", "yes"])[Y], np.array(["left", "right"])[GROUP]
    rows = [(IDS[i], str(names[i]), str(groups[i])) for i in range(N)]
    found = ThresholdDebiaser(words(), epsilon=0.3, random_state=0)
    found.fit(DataLoader(rows, batch_size=64))
    expected = fit(IDS, names, groups)
    assert found.classes_.tolist() == ["no", "yes"]
    assert found.trials_.equals(expected.trials_)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        # As default_collate gives them, with as many columns as rows: not a group for each row.
        ((IDS[:2], Y[:2], {"sex": ["a", "b"], "age": ["x", "y"]}), "group is of type dict"),
        ((IDS[:2], Y[:2], [("a", "b"), ("x", "y")]), "group is of type list, with length 2"),
        ((IDS[:2], Y[:2], ["a"]), "group is of type list, with length 1"),
        ((IDS[:2], int(Y[0]), ["a", "b"]), "label is of type int"),
    ],
)
def test_a_loader_with_other_than_one_label_and_group_a_row_is_refused(batch, said):
    batches = DataLoader([batch], batch_size=None, collate_fn=lambda given: given)
    with pytest.raises(ValueError, match=f"DataLoader whose batch 0 has 2 rows.*{said}"):
        ThresholdDebiaser(words()).fit(batches)


@pytest.mark.parametrize("bad", [0, 7, N - 1])
def test_an_error_of_an_item_names_the_row(bad):
    def read(row, item):
        return {**item, "mask": {}["no such file"]} if row == bad else item

    with pytest.raises(KeyError, match="no such file") as caught:
        fit(Items(read))
    assert caught.value.__notes__ == [f"X[{bad}] raised this error."]


def test_a_loader_whose_batches_have_other_inputs_is_refused():
    given = [({"ids": IDS[:9]}, Y[:9], Y[:9]), (dict(TEXT), Y, GROUP)]
    batches = DataLoader(given, batch_size=None, collate_fn=lambda given: given)
    with pytest.raises(ValueError, match=r"batch 1 has the inputs \['ids', 'mask'\], the first"):
        ThresholdDebiaser(words()).fit(batches)


@pytest.mark.parametrize("features", ["auto", "input"])
def test_what_linear_post_advises_for_inputs_by_name_is_possible(features):
    class Scaled(Words):
        def forward(self, ids, mask=None):
            return 2 * super().forward(ids, mask)

    with pytest.raises(ValueError, match=r"ends in a torch\.nn\.Linear") as caught:
        fit(network=Scaled(), kind=LinearPostDebiaser, group_features=features)
    assert "Set group_features" not in str(caught.value)


def test_texts_are_told_from_names_of_files():
    texts = ["it was good " * 500] * N
    with pytest.raises(ValueError, match=r"no file X\[0\]='it was good .*tokenize") as caught:
        fit(texts)
    assert len(str(caught.value)) < 400


def test_a_dataset_of_hugging_face():
    pytest.importorskip("datasets.arrow_dataset")  # "datasets" may be a folder of tests
    import datasets

    found = fit(datasets.Dataset.from_dict(TEXT))
    assert found.trials_.equals(fit().trials_)


def test_a_search_cuts_a_slice_dict():
    debiaser = ThresholdDebiaser(words(), random_state=0)
    search = GridSearchCV(debiaser, {"epsilon": [0.1, 0.5]}, cv=3, scoring="balanced_accuracy")
    search.fit(SliceDict(**TEXT), Y, sensitive_features=GROUP)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(SliceDict(**TEXT)).shape == (N,)


def test_image_files_reach_a_network_as_channels_from_zero_to_one(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, size=(60, 6, 5, 3), dtype=np.uint8)
    files = [tmp_path / f"{i}.png" for i in range(60)]
    for path, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(path)
    network = nn.Sequential(nn.Flatten(), nn.Linear(90, 1))
    y, groups = np.arange(60) % 2, np.arange(60) // 2 % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        debiaser = ThresholdDebiaser(network, epsilon=0.5).fit(files, y, sensitive_features=groups)
    X = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    expected = network(X).detach().numpy()[:, 0] - debiaser.threshold_
    np.testing.assert_allclose(debiaser.decision_function(files), expected, atol=1e-5)


def test_texts_may_be_longer_than_those_of_the_fit():
    longer = np.random.default_rng(1).integers(WORDS, size=(9, LENGTH + 4))
    debiaser = fit()
    found = debiaser.decision_function({"ids": longer, "mask": np.ones_like(longer)})
    expected = margins(ids=longer, mask=np.ones_like(longer)) - debiaser.threshold_
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("form", ["dict", "tuple"])
@pytest.mark.parametrize("answer", ["tensor", "attribute"])
def test_a_saved_model_is_called_as_before(form, answer, tmp_path):
    X = FORMS[form]()
    debiaser = fit(X, network=words(answer))
    skfair.save(debiaser, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories=lambda: words(answer))
    np.testing.assert_array_equal(loaded.decision_function(X), debiaser.decision_function(X))
    with pytest.raises(ValueError, match="was fitted with a"):
        loaded.predict(IDS)


# Bad input ----------------------------------------------------------------------------------


def test_inputs_of_unequal_length():
    with pytest.raises(
        ValueError, match=r"unequal numbers of rows: X\['ids'\] has 240, .* has 239"
    ):
        fit({"ids": IDS, "mask": MASK[1:]})


def test_labels_of_another_number():
    with pytest.raises(ValueError, match="y has 239 labels for the 240 samples of X"):
        fit(y=Y[1:])


def test_an_input_that_the_network_does_not_know():
    with pytest.raises(ValueError, match=r"\['ids', 'kind'\], forward .* takes \['ids', 'mask'\]"):
        fit({"ids": IDS, "kind": IDS})


def test_ids_out_of_range():
    ids = IDS.copy()
    ids[[17, 203], 2] = WORDS
    with pytest.raises(ValueError, match=r"IndexError.*rows that fail: 17, 203"):
        fit({"ids": ids, "mask": MASK})
    with pytest.raises(ValueError, match=r"IndexError.*rows that fail: 17, 203"):
        fit().predict({"ids": ids, "mask": MASK})


def test_a_loader_without_labels_or_groups():
    debiaser = ThresholdDebiaser(words())
    with pytest.raises(ValueError, match=r"hold no labels.*\(inputs, label, group\)"):
        debiaser.fit(loader(parts=1))
    with pytest.raises(ValueError, match=r"hold no groups.*\(inputs, label, group\)"):
        debiaser.fit(loader(parts=2))


def test_a_loader_that_shuffles_beside_labels_in_another_order():
    with pytest.raises(ValueError, match="shuffles, and y or sensitive_features"):
        fit(loader(shuffle=True))
    with pytest.raises(ValueError, match="shuffle=False"):
        fit().predict(loader(shuffle=True))


@pytest.mark.parametrize("sampler", [RandomSampler, SequentialSampler])
def test_a_loader_with_a_batch_sampler(sampler):
    rows = loader(parts=1).dataset
    batches = DataLoader(rows, batch_sampler=BatchSampler(sampler(rows), 50, drop_last=False))
    fitted = fit()
    if sampler is RandomSampler:
        with pytest.raises(ValueError, match="shuffle=False"):
            fitted.predict(batches)
    else:
        predicted = fitted.predict(batches)
        np.testing.assert_array_equal(predicted, fitted.predict(loader(parts=1)))


CHANGES = {
    "a shape": (lambda item: item | {"ids": item["ids"][:3]}, r"X\[99\]\['ids'\] has shape \(3,\)"),
    "a type": (lambda item: item | {"mask": item["mask"] / 2}, "type torch.float64"),
    "a key": (lambda item: {"ids": item["ids"]}, r"X\[99\] has the inputs \['ids'\]"),
    "a kind": (lambda item: item["ids"], "X\\[99\\] is of another kind"),
    "a text": (lambda item: item | {"ids": "a text"}, "not numbers"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_dataset_whose_items_change(change):
    do, message = CHANGES[change]
    with pytest.raises((ValueError, TypeError), match=message):
        fit(Items(lambda row, item: do(item) if row == 99 else item))


def test_a_dataset_whose_items_differ_at_the_second_reading():
    count = iter(range(10**9))
    with pytest.raises(ValueError, match=r"X\[\d+\] has other values than at the first reading"):
        fit(Items(lambda row, item: item | {"ids": (item["ids"] + next(count)) % WORDS}))


@pytest.mark.parametrize(
    "X, message",
    [
        (IDS, "X is an array, ThresholdDebiaser was fitted with a dict of"),
        ({"ids": IDS}, r"X is a dict of \['ids'\]"),
        ({"ids": IDS, "mask": MASK[:, :, None]}, r"X\['mask'\] has samples of shape \(5, 1\)"),
        ({"ids": IDS / 2, "mask": MASK}, r"X\['ids'\] holds floating numbers"),
        ({"ids": IDS, "mask": [[None] * LENGTH] * N}, r"X\['mask'\] holds values of type object"),
        ({"ids": IDS, "mask": [[1], [1, 1]]}, r"X\['mask'\] has rows of unequal lengths"),
        ({}, "a text for each argument"),
    ],
)
def test_other_inputs_than_in_fit(X, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit().predict(X)


def test_numbers_that_are_not_finite():
    weights = np.ones((N, 3))
    weights[41] = np.nan
    with pytest.raises(ValueError, match=r"X\[0\] contains NaN or infinity, first in row 41"):
        fit((weights, IDS), network=words())


# In older versions of SciPy, dok arrays are dicts.
@pytest.mark.parametrize("kind", ["csr_array", "dok_array", "dok_matrix"])
def test_a_sparse_array_is_one_array(kind):
    with pytest.raises(TypeError, match="Sparse data was passed for X"):
        fit(getattr(scipy.sparse, kind)(np.eye(N, 5)), network=words())
