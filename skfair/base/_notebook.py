"""How an estimator looks in a notebook: the link to its page, and one line after ``fit``."""

from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from sklearn.exceptions import NotFittedError
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.validation import check_is_fitted


@cache
def documentation_address() -> str:
    """Return the address of the documentation in the package metadata, or an empty string."""
    try:
        urls = metadata("skfair-debias").get_all("Project-URL") or []
    except PackageNotFoundError:  # imported from a folder that is not installed
        return ""
    found = dict(url.split(", ", 1) for url in urls)
    return found.get("Documentation", "").rstrip("/")


class NotebookView:
    """Mixin of estimators: scikit-learn's HTML with a link of skfair and one line after `fit`."""

    _doc_link_module = "skfair"  # scikit-learn gives classes of other packages no link

    @property
    def _doc_link_template(self) -> str:
        page = "/api/generated/{estimator_module}.{estimator_name}.html"
        return documentation_address() + page

    def _get_doc_link(self) -> str:
        return super()._get_doc_link() if documentation_address() else ""  # type: ignore[misc]

    def _fit_summary(self) -> str:
        """Return one line of plain text about the fit; an empty string shows no line.

        The line comes from fitted attributes only: parameters may have changed since `fit`.
        """
        return ""

    def _sk_visual_block_(self) -> Any:
        try:
            check_is_fitted(self)
        except NotFittedError:
            caption = ""
        else:
            caption = self._fit_summary()
        return _VisualBlock(
            "single",
            self,
            names=type(self).__name__,
            name_details=str(self),
            name_caption=caption,  # scikit-learn escapes it
        )
