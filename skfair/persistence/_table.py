"""Saved estimators: the classes that a file may name, and the attributes of each class.

An attribute that is not in the table is neither written nor read. An attribute in the table has the
type, the shape and the range in the table. A name in a shape stands for a number that is the same
everywhere in one estimator. Such relations between attributes guarantee that compiled code never
reads outside an array; checks of single attributes would not.

The list of classes of scikit-learn is short on purpose. Trees, kernel machines and encoders of
categories hold tables that compiled code uses without bounds checks.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

# Range of factors and divisors, so that results are finite in float32.
_LARGE, _TINY = 1e20, 1e-17
_MOST_FEATURES = 1 << 20  # each feature gets a name when an estimator is shown
_MOST_IN_PATCH = 1 << 22  # numbers
SIDE = 1 << 16  # numbers along one side of a sample
# Attributes with data about single training rows.
TRAINING_ROWS = (
    *("labels_", "_hard", "_easy"),
    *("conflicting_", "_random_order", "_conspicuous_order"),
)


# -- relations that names in shapes cannot express ---------------------------------------------


def _margin(estimator: Any, state: dict, sizes: dict[str, int]) -> bool:
    """loss_, _head, amplifier_, cluster_centers_ and margins_ are from the same fit."""
    width = sizes["units" if estimator.cluster_on == "amplified" else "features"]
    has_clusters = "cluster_centers_" in state
    return (
        ("_head" in state) == (state["loss_"] == "margin")
        and not ("_head" in state and "margins_" not in state)
        and not (has_clusters and not {"amplifier_", "margins_"} <= state.keys())
        and not (has_clusters and (sizes["space"] != width or not sizes["clusters"]))
    )


def _adjusted(estimator: Any, state: dict, sizes: dict[str, int]) -> bool:
    """coef_ and intercept_ need a linear head, module_ another head; both orders, or neither."""
    linear = state["head_"] == "linear"
    if ("_random_order" in state) != ("_conspicuous_order" in state):
        return False
    return ("coef_" in state) == ("intercept_" in state) == linear != ("module_" in state)


def _debiaser(estimator: Any, state: dict, sizes: dict[str, int]) -> bool:
    """_sample_shape has n_features_in_ features, or names the inputs of the signature."""
    form, kept, _ = state.get("_signature", ("array", (), "tensor"))
    if isinstance(state["_sample_shape"], dict):
        return form != "array" and "features" not in sizes and {*kept} <= {*state["_sample_shape"]}
    if form != "array":
        return False
    return sizes.get("features", state["_sample_shape"][0]) == state["_sample_shape"][0]


def _linear_post(estimator: Any, state: dict, sizes: dict[str, int]) -> bool:
    """_sample_shape has n_features_in_ features, and _output and module_ fit the classes."""
    n_columns, weights = state["_output"][1], state["module_"]
    corrected = state["group_features_"] != "none"
    return (
        _debiaser(estimator, state, sizes)
        and (n_columns == sizes["classes"] or (n_columns, sizes["classes"]) == (1, 2))
        and corrected == ("1.weights" in weights)
        and not (corrected and weights["1.weights"].shape[1:] != (sizes["classes"],))
    )


def _masker(estimator: Any, state: dict, sizes: dict[str, int]) -> bool:
    """classes_ and mean_map_ have the same number of attributes, and data_range_ is ascending."""
    several = isinstance(state["classes_"], list)
    n_attributes = len(state["classes_"]) if several else 1
    low, high = state["data_range_"]
    channels, height, width = state["image_shape_"]
    in_patch = channels * state["_network_parameters"]["patch_size"] ** 2
    return (
        sizes["attributes"] == n_attributes
        and (state["mean_map_"].ndim == 3) == several
        and low <= high
        and in_patch <= _MOST_IN_PATCH
        and sizes.get("features", channels * height * width) == channels * height * width
    )


def _featurizer(estimator: Any, state: dict, sizes: dict[str, int]) -> bool:
    """image_shape_ or n_features_in_ is known, and neither of them for items."""
    shape = state["image_shape_"]
    if (state["input_dtype_"] is None) != (estimator.data_format == "items"):
        return False
    if estimator.data_format == "items":
        return shape is None and "features" not in sizes
    due = sizes.get("features") if shape is None else math.prod(shape)
    return due is not None and sizes.get("features", due) == due


def _standard(estimator: Any, state: dict, sizes: dict[str, int]) -> bool:
    """mean_ and scale_ are there if the parameters need them."""
    return not (estimator.with_mean and state["mean_"] is None) and not (
        estimator.with_std and state["scale_"] is None
    )


def _min_max(estimator: Any, state: dict, sizes: dict[str, int]) -> bool:
    """feature_range is ascending."""
    low, high = estimator.feature_range
    return -_LARGE < low < high < _LARGE


def _linear(estimator: Any, state: dict, sizes: dict[str, int]) -> bool:
    """coef_ has one row per class, or one row for two classes."""
    n_classes = sizes["classes"]
    return n_classes > 1 and sizes["rows"] == (1 if n_classes == 2 else n_classes)


# -- the table ---------------------------------------------------------------------------------
# ("number", low, high), ("whole", low, high[, name]), ("array", kinds, shape, low, high): if `high`
# is a name, the entries are indices below its number. With "or NaN", whole rows may be NaN.
# ("maybe", ...) marks an optional attribute. A shape is a text with one word per axis: a name, a
# number, or "_" for any length.

_COUNT = ("whole", 0, math.inf)
_ANY = ("number", -_LARGE, _LARGE)
_MEASURED = ("either", ("number", -math.inf, math.inf), "undefined")  # no code computes with it
_FEATURES = ("whole", 1, 2 * _MOST_FEATURES, "features")
_PER_FEATURE = ("array", "f", "features", -_LARGE, _LARGE)
_SCALE = ("array", "f", "features", _TINY, _LARGE)
_COLUMNS = {
    "n_features_in_": ("maybe", _FEATURES),
    "feature_names_in_": ("maybe", ("names", "features")),
}
# Of several inputs by name; one number a row is a sample of no axis.
_SAMPLE = ("either", "sample shape", ("by name", ("all", tuple, ("whole", 0, SIDE), "_")))
_SIGNATURE = (
    "tuple",
    ("text", "array", "dict", "tuple"),
    ("all", tuple, ("text",), "_"),
    ("text", "tensor", "attribute", "item", "first"),
)
_EPOCHS = ("table", "epoch", {"train_loss": "fiu"}, "_")
_TRIALS = {
    **dict.fromkeys(("candidate", "layer"), "O"),
    **dict.fromkeys(("epoch", "step", "threshold", "bias", "performance", "probability"), "fiu"),
    "target": "f",
    **{"objective": "fiu", "feasible": "b"},
}
_DTYPE = ("one of", torch.float16, torch.bfloat16, torch.float32, torch.float64)
_PAIRS = {
    **dict.fromkeys(("rate", "group_1", "group_2"), "O"),
    **dict.fromkeys(("difference", "low", "high", "probability"), "f"),
}
_SIZES = ("either", ("one of", None), ("all", list, ("all", list, _COUNT, "rates"), "groups"))
_LABEL = ("text",), _ANY, "truth"
_GROUP = ("either", *_LABEL, ("all", list, ("either", *_LABEL), "_"))
_PER_PAIR = ("all", list, ("either", ("one of", None), ("number", -1, 1)), "pairs")
_CERTIFICATE = {
    **{"holds": "truth", "constraint": ("text",), "test": ("text",), "least_rows": _COUNT},
    **dict.fromkeys(("epsilon", "confidence"), ("number", 0, 1)),
    "groups": ("all", list, _GROUP, "groups"),
    "rates": ("all", list, ("text",), "rates"),
    **dict.fromkeys(("group_sizes", "rows_needed", "rows_at_parity"), _SIZES),
    "pairs": (
        "dict",
        {
            "rate": ("all", list, ("text",), "pairs"),
            **dict.fromkeys(("group_1", "group_2", "n_1", "n_2"), ("all", list, _COUNT, "pairs")),
            **dict.fromkeys(("rate_1", "rate_2", "difference", "bound", "p_value"), _PER_PAIR),
            "holds": ("all", list, "truth", "pairs"),
        },
    ),
}
_IMAGE = (
    "tuple",
    *(("whole", 1, SIDE, name) for name in ("channels", "height", "width")),
)
TABLE: dict[str, tuple[dict[str, Any], Callable | None]] = {
    "skfair.ClusterMarginClassifier": (
        {
            **_COLUMNS,
            "n_features_in_": _FEATURES,
            "classes_": ("labels", "classes"),
            "_network_parameters": (
                "dict",
                {
                    "module__n_features": _FEATURES,
                    "module__n_units": ("whole", 1, math.inf, "units"),
                    "module__mean": ("tensor", "features", -_LARGE, _LARGE),
                    "module__spread": ("tensor", "", _TINY, _LARGE),
                },
            ),
            "loss_": ("text", "margin", "cluster_weighted", "loss_weighted", "cross_entropy"),
            "history_": ("dict", {"amplifier": ("maybe", _EPOCHS), "classifier": _EPOCHS}),
            "diagnostics_": (
                "by name",
                (
                    *("either", _MEASURED, "truth", ("text",), ("one of", None)),
                    ("by name", _MEASURED),  # measured on a hold-out, by loss
                ),
            ),
            "cluster_centers_": (
                "maybe",
                ("array", "f", "clusters space", -_LARGE, _LARGE, "or NaN"),
            ),
            "_cluster_sizes": ("maybe", ("array", "f", "clusters", 0, _LARGE)),
            "margins_": ("maybe", ("array", "f", "clusters classes", -_LARGE, _LARGE)),
            "labels_": ("maybe", ("array", "i", "_", 0, "clusters")),
            "_hard": ("maybe", ("array", "i", "_", 0, math.inf)),
            "_easy": ("maybe", ("array", "i", "_", 0, math.inf)),
            "amplifier_": ("maybe", "weights"),
            "module_": "weights",
            "_head": (
                "maybe",
                (
                    "dict",
                    {"margin_std": ("number", 0, _LARGE), "scale": ("number", _TINY, _LARGE)},
                ),
            ),
        },
        _margin,
    ),
    "skfair.LogitAdjustedClassifier": (
        {
            **_COLUMNS,
            "n_features_in_": _FEATURES,
            "classes_": ("labels", "classes"),
            "_projection": (
                "dict",
                {
                    "coef": ("array", "f", "components features", -_LARGE, _LARGE),
                    "intercept": ("array", "f", "components", -_LARGE, _LARGE),
                },
            ),
            "attribute_values_": (
                "all",
                list,
                ("either", *_LABEL, ("all", tuple, ("either", *_LABEL), "_")),
                "values",
            ),
            "_attribute": (
                "dict",
                {
                    "coef": ("array", "f", "values features", -_LARGE, _LARGE),
                    "intercept": ("array", "f", "values", -_LARGE, _LARGE),
                },
            ),
            "prior_": ("array", "f", "values classes", 0, 1),
            "expected_counts_": ("array", "f", "values classes", 0, _LARGE),
            "diagnostics_": ("by name", _MEASURED),
            "head_": ("text", "linear", "mlp"),
            "coef_": ("maybe", ("array", "f", "classes features", -_LARGE, _LARGE)),
            "intercept_": ("maybe", ("array", "f", "classes", -_LARGE, _LARGE)),
            "module_": ("maybe", "weights"),
            "conflicting_": ("maybe", ("array", "b", "_", 0, 1)),
            "_random_order": ("maybe", ("array", "i", "_", 0, math.inf)),
            "_conspicuous_order": ("maybe", ("array", "i", "_", 0, math.inf)),
        },
        _adjusted,
    ),
    "skfair.LinearPostDebiaser": (
        {
            **_COLUMNS,
            "classes_": ("labels", "classes"),
            "_order": ("maybe", ("array", "i", "classes", 0, "classes")),
            "_sample_shape": _SAMPLE,
            "_signature": ("maybe", _SIGNATURE),
            "_output": ("tuple", ("text", "logits", "probabilities"), ("whole", 1, math.inf)),
            "_flat": "truth",
            "_layer": ("text",),
            "_within": ("maybe", "truth"),
            "group_features_": ("text", "network", "input", "none"),
            "module_": "weights",
            "_dtype": _DTYPE,
            "_measures": ("maybe", ("tuple", ("text",), ("text",))),
            "bias_": _MEASURED,
            "bias_interval_": ("tuple", _MEASURED, _MEASURED),
            "performance_": _MEASURED,
            "objective_": _MEASURED,
            "feasible_": "truth",
            "pairs_": ("table", None, _PAIRS, "_"),
            "certificate_": ("either", ("one of", None), ("dict", _CERTIFICATE)),
            "trials_": ("table", "trial", _TRIALS, "trials"),
            "best_trial_": _COUNT,
        },
        _linear_post,
    ),
    "skfair.*Debiaser": (
        {
            **_COLUMNS,
            "classes_": ("labels", "2"),
            "_order": ("maybe", ("array", "i", "2", 0, 1)),
            "_sample_shape": _SAMPLE,
            "_signature": ("maybe", _SIGNATURE),
            "_output": ("tuple", ("text", "logits", "probabilities"), ("whole", 1, 2)),
            "interrupted_": "truth",
            "history_": ("maybe", _EPOCHS),
            "module_": "weights",
            "_dtype": _DTYPE,
            "threshold_": _ANY,
            "_measures": ("maybe", ("tuple", ("text",), ("text",))),
            "bias_": _MEASURED,
            "bias_interval_": ("tuple", _MEASURED, _MEASURED),
            "performance_": _MEASURED,
            "objective_": _MEASURED,
            "feasible_": "truth",
            "pairs_": ("maybe", ("table", None, _PAIRS, "_")),
            "certificate_": ("maybe", ("either", ("one of", None), ("dict", _CERTIFICATE))),
            "trials_": ("table", "trial", _TRIALS, "trials"),
            "best_trial_": _COUNT,
        },
        _debiaser,
    ),
    "skfair.PatchAttributionMasker": (
        {
            **_COLUMNS,
            "image_shape_": _IMAGE,
            "input_dtype_": ("one of", np.dtype("uint8"), np.dtype("float32")),
            "data_range_": ("tuple", _ANY, _ANY),
            "channel_mean_": ("array", "f", "channels", -_LARGE, _LARGE),
            "channel_std_": ("array", "f", "channels", _TINY, _LARGE),
            "attribute_names_": ("all", tuple, ("text",), "attributes"),
            "classes_": (
                "either",
                ("labels", "classes"),
                ("all", list, ("labels", "_"), "attributes"),
            ),
            "module_": "weights",
            "temperature_": ("array", "f", "attributes", _TINY, _LARGE),
            "mean_map_": (
                "either",
                ("array", "f", "height width", -_LARGE, _LARGE),
                ("array", "f", "attributes height width", -_LARGE, _LARGE),
            ),
            "region_accuracy_": (
                "either",
                ("measured", "_ _"),
                ("measured", "attributes _ _"),
            ),
            "calibration_error_": _MEASURED,
            "informative_": "truth",
            # Attributes that skfair 0.1 did not have.
            "_positive": ("maybe", ("array", "i", "attributes", -1, 1)),
            "attribute_auc_": ("maybe", _MEASURED),
            "score_threshold_": ("maybe", ("array", "f", "attributes", 0, 1)),
            "_donor_maps": ("maybe", ("array", "f", "attributes _ _ _", -_LARGE, _LARGE)),
            "scope_": ("maybe", ("text", "general", "specific")),
            "quantile_": ("maybe", ("number", 0, 1)),
            "leakage_": ("maybe", _MEASURED),
            "leakage_interval_": ("maybe", ("tuple", _MEASURED, _MEASURED)),
            "leakage_before_": ("maybe", _MEASURED),
            "_network_parameters": (
                "dict",
                {
                    "patch_size": ("whole", 1, SIDE),
                    "stride": ("whole", 1, SIDE),
                    "position_embedding": "truth",
                    "region_classifier": ("maybe", ("text", "dense", "resnet18")),
                },
            ),
        },
        _masker,
    ),
    "skfair.FrozenEncoderFeaturizer": (
        {
            **_COLUMNS,
            "image_shape_": ("either", ("one of", None), _IMAGE),
            "input_dtype_": ("one of", None, np.dtype("uint8"), np.dtype("float32")),
            "n_features_out_": ("whole", 1, _MOST_FEATURES),
            "_failed_channels_last": ("maybe", "truth"),
        },
        _featurizer,
    ),
    "sklearn.decomposition.PCA": (
        {
            **_COLUMNS,
            "n_features_in_": _FEATURES,
            "n_samples_": _COUNT,
            "n_components_": ("whole", 0, math.inf, "components"),
            "components_": ("array", "f", "components features", -2, 2),
            "mean_": _PER_FEATURE,
            "explained_variance_": ("array", "f", "components", 0, _LARGE),
            "explained_variance_ratio_": ("measured", "components"),
            "singular_values_": ("measured", "components"),
            "noise_variance_": _MEASURED,
            "_fit_svd_solver": ("text",),
        },
        None,
    ),
    "sklearn.frozen.FrozenEstimator": ({}, None),
    "sklearn.linear_model.LogisticRegression": (
        {
            **_COLUMNS,
            "n_features_in_": _FEATURES,
            "classes_": ("labels", "classes"),
            "coef_": ("array", "f", "rows features", -_LARGE, _LARGE),
            "intercept_": ("either", ("array", "f", "rows", -_LARGE, _LARGE), _ANY),
            "n_iter_": ("array", "iu", "_", 0, math.inf),
        },
        _linear,
    ),
    "sklearn.pipeline.Pipeline": ({}, None),
    "sklearn.preprocessing.MinMaxScaler": (
        {
            **_COLUMNS,
            "n_samples_seen_": _COUNT,
            **dict.fromkeys(("scale_", "min_", "data_min_", "data_max_"), _PER_FEATURE),
            "data_range_": ("measured", "features"),
        },
        _min_max,
    ),
    "sklearn.preprocessing.StandardScaler": (
        {
            **_COLUMNS,
            "n_samples_seen_": (
                "either",
                ("number", 0, math.inf),
                ("array", "iuf", "features", 0, math.inf),
            ),
            "mean_": ("either", ("one of", None), _PER_FEATURE),
            "var_": ("either", ("one of", None), ("measured", "features")),
            "scale_": ("either", ("one of", None), _SCALE),
        },
        _standard,
    ),
}
