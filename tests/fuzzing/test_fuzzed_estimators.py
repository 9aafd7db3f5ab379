"""Every public estimator on odd data: it works, or says in words what is wrong with them."""

import calls
import profiles
import pytest
from calls import GROUPS, IMAGES, ROWS, WEIGHT, N, Y
from hypothesis import given
from hypothesis import strategies as st
from odd_data import DATA, LABELS, WEIGHTS, changed

pytestmark = pytest.mark.thorough

OF_ROWS = sorted(set(calls.ESTIMATORS) - set(calls.OF_IMAGES))


def works_or_is_refused(called):
    """What was called has an answer, or one of the errors that are documented."""
    if called.error is None:
        return called.result is not None
    return isinstance(called.error, ValueError | TypeError) and bool(str(called.error))


@pytest.mark.parametrize("name", OF_ROWS)
def test_fit(name):
    # Mostly one odd argument a call: of several, the first hides the others.
    odd = st.tuples(changed(ROWS, DATA, 2), st.just((Y, [])), st.just((GROUPS, [])))
    odd |= st.tuples(st.just((ROWS, [])), changed(Y, LABELS), changed(GROUPS, LABELS))
    weights = st.just((None, []))
    if name in ("ClusterMarginClassifier", "LogitAdjustedClassifier"):
        weights |= changed(WEIGHT, WEIGHTS)

    @profiles.some(40 if name == "ClusterMarginClassifier" else 25)
    @given(odd=odd, weight=weights)
    def run(odd, weight):
        called = calls.fit_and_predict(name, *(data for data, _ in odd), weight[0])
        assert works_or_is_refused(called)

    run()


@pytest.mark.parametrize("name", OF_ROWS)
def test_predict(name):
    @profiles.some(25)
    @given(changed(ROWS, DATA, 2))
    def run(X):
        assert works_or_is_refused(calls.predict(name, X[0]))

    run()


@pytest.mark.parametrize("scale", [1, 255], ids=["8-bit", "floats"])
@pytest.mark.parametrize("rows", [False, True], ids=["images", "rows"])
@pytest.mark.parametrize("name", calls.OF_IMAGES)
def test_images(name, rows, scale):
    good = IMAGES if scale == 1 else (IMAGES / scale).astype("f4")
    good = good.reshape(N, -1) if rows else good

    @profiles.some(25)
    @given(
        odd=st.tuples(changed(good, DATA, 2), st.just((GROUPS, [])))
        | st.tuples(st.just((good, [])), changed(GROUPS, LABELS)),
        fit=st.booleans(),
    )
    def run(odd, fit):
        called = calls.transform_images(name, *(data for data, _ in odd), fit=fit, rows=rows)
        assert works_or_is_refused(called)

    run()
