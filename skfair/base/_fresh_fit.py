"""Fits that hold or leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

from skfair.utils._settings import OwnSettings


class FreshFit(OwnSettings):
    """Mixin for estimators whose ``fit`` ends wholly or leaves them as they were."""

    @contextmanager
    def _fresh_fit(self) -> Iterator[None]:
        """Fit wholly or not at all.

        The block starts without what an earlier fit left; where it raises, an interrupt
        included, the estimator is again what it was before.
        """
        before = dict(vars(self))
        for name in before:
            if name.endswith("_") and not name.startswith("__"):
                delattr(self, name)
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise
