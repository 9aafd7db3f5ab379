"""What an estimator hands over to be saved as data, and takes back."""

from typing import Any

import numpy as np


class SavedState:
    """Mixin for estimators that can be saved: three hooks, which most need not change."""

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert the fitted state to data, for example a network to its weights.

        Parameters
        ----------
        state : dict of str to object
            All attributes but the parameters. It may be changed.

        Returns
        -------
        dict of str to object
            Numbers, texts, arrays, tensors, tables and containers of them. The table of
            :mod:`skfair.persistence` says what each attribute may be.
        """
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        """Set the fitted attributes; the inverse of :meth:`_state_to_save`.

        Parameters
        ----------
        state : dict of str to object
            What :meth:`_state_to_save` returned, read from a file and checked.
        """
        vars(self).update(state)

    def _outputs_of_noise(
        self, rng: np.random.Generator, *, quick: bool = False
    ) -> np.ndarray | None:
        """Compute a few outputs of the fitted estimator for random input.

        After loading, they show whether the caller made the same network again.

        Parameters
        ----------
        rng : numpy.random.Generator
            Draws the input.
        quick : bool, default=False
            Whether the last digits may differ from those of the predictions, where this saves time.

        Returns
        -------
        ndarray or None
            None if running the network may cost money, or where no parameter is a network.
        """
        return None
