"""Columns of images in data sets on disk: each item is fetched when it is needed."""

from typing import Any

from skfair.utils._shown import shown, shown_all

_BINARY = ("binary", "large_binary", "fixed_size_binary", "struct")
_OF_TABLES = ("arrow", "pandas", "polars")  # formats of Hugging Face


class ArrowColumn:
    """A column of bytes of pyarrow; :meth:`to_pylist` would copy all of them."""

    def __init__(self, column: Any):
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: int) -> Any:
        return self._column[row].as_py()


class DatasetColumn:
    """A column of a Hugging Face dataset, with the bytes of its images where it has them.

    The dataset would decode an image in the thread that fetches it. Its bytes are decoded later,
    by any thread. A dataset with a transform, or with a format of arrays, returns what that makes.
    """

    def __init__(self, dataset: Any, name: str):
        feature = dataset.features[name]
        if dataset.format["type"] in _OF_TABLES:  # the images in tables of one cell
            dataset = dataset.with_format(None)
        if dataset.format["type"] != "custom":  # the transform may take the other columns
            dataset = dataset.select_columns([name])  # the others would be decoded too
        is_plain = dataset.format["type"] is None
        # With a mode, the dataset converts the pixels, maybe in two steps.
        if is_plain and _is_image(feature) and feature.decode and feature.mode is None:
            dataset = dataset.cast_column(name, type(feature)(decode=False))
        self._dataset, self._name = dataset, name

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: int) -> Any:
        found = self._dataset[row]
        if self._name not in found:
            raise TypeError(
                f"X ({type(self._dataset).__name__}) cannot be used: its format or transform "
                f"returns {shown_all(list(found)) or 'nothing'}, and no {shown(self._name)}. Give "
                f"X.with_format(None), or keep the name {shown(self._name)}."
            )
        return found[self._name]


def stored_column(X: Any) -> ArrowColumn | DatasetColumn | None:
    """Return the images of a column of pyarrow, or of a Hugging Face dataset or its column.

    Returns
    -------
    ArrowColumn, DatasetColumn or None
        None if X is nothing of these.

    Raises
    ------
    TypeError
        X is a dataset, and it is unknown which of its columns holds the images.
    """
    if hasattr(X, "to_pylist") and str(getattr(X, "type", "")).startswith(_BINARY):
        return ArrowColumn(X)
    source: Any = getattr(X, "source", None)
    name = getattr(X, "column_name", None)
    if isinstance(name, str) and is_dataset(source) and name in source.features:
        return DatasetColumn(source, name)
    if not is_dataset(X):
        return None
    names = list(X.column_names)
    images = [name for name in names if _is_image(X.features.get(name))]
    if len(images) != 1:
        some = images or names
        found = f"of which {shown_all(images)} hold images" if images else "none of type Image"
        raise TypeError(
            f"X ({type(X).__name__}) cannot be used: it has the columns {shown_all(names)}, "
            f"{found}. Give the column with the images, as "
            f"X[{shown(some[0] if some else 'image')}]."
        )
    return DatasetColumn(X, images[0])


def is_dataset(X: Any) -> bool:
    """Whether X is a Hugging Face dataset, without an import of its package."""
    return all(hasattr(X, name) for name in ("column_names", "features", "__getitem__"))


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image" and hasattr(feature, "decode_example")
