"""Debias a network by DetoxAI, predict, and write predictions and costs into a file.

    python detoxai_worker.py METHOD given.npz answer.npz

This file runs in the environment of DetoxAI and imports nothing of skfair. `given` has "network",
a pickled network of two logits as bytes; "X", "y" and "group" (0 and 1) of the debiasing rows;
"X_test", "constraint", "epsilon" and "seed". METHOD is a name that DetoxAI gives to its methods.
"""

import io
import logging
import sys

import numpy as np
import torch
from worker import measured

NAMES = {"demographic_parity": "DP_GAP", "equal_opportunity": "TPR_GAP", "average_odds": "EO_GAP"}


def debiased(method, given):
    """A function that predicts the test rows by the network that DetoxAI returns."""
    import detoxai
    from detoxai.metrics.bias_metrics import BiasMetrics

    errors, handler = [], logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(record.getMessage())
    logging.getLogger("detoxai").addHandler(handler)
    network = torch.load(io.BytesIO(given["network"].tobytes()), weights_only=False).eval()
    X, y, group = (torch.from_numpy(given[name]) for name in ("X", "y", "group"))
    metric = BiasMetrics(NAMES[str(given["constraint"])])
    settings = {"epsilon": float(given["epsilon"]), "bias_metric": metric, "metric": metric}
    results = detoxai.debias(
        network,
        torch.utils.data.DataLoader(list(zip(X, y, group, strict=True)), batch_size=128),
        methods=[method],
        methods_config={method: {**settings, "seed": int(given["seed"])}},
        include_vanila_in_results=False,
        num_of_classes=2,
    )
    if errors:  # DetoxAI logs them, and returns the network as it was
        raise RuntimeError(next((text for text in errors if text.startswith("Error ")), errors[0]))
    corrected = results[method].get_model().eval()

    def predict():
        with torch.no_grad():
            return corrected(torch.from_numpy(given["X_test"])).argmax(1).numpy()

    return predict


def main(method, given, answer):
    torch.set_num_threads(1)
    with np.load(given) as file:
        given = {name: file[name] for name in file.files}
    np.savez(answer, **measured(lambda: debiased(method, given)))


if __name__ == "__main__":
    main(*sys.argv[1:])
