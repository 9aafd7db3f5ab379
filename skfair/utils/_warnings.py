"""Warning classes of skfair, so that a user can filter each of them by name."""


class FairnessWarning(UserWarning):
    """Base class of skfair's warnings: a method may not have the effect that it is used for."""


class AmplificationWarning(FairnessWarning):
    """The bias amplifier did not find a bias that is easier to learn than the classes."""


class FallbackWarning(FairnessWarning):
    """A method was not clearly better than its starting point, so the starting point is used."""


class LabelOrderWarning(FairnessWarning):
    """A network is worse than guessing. Its outputs may be in another order than the labels."""


class LeakageWarning(FairnessWarning):
    """A network still detects an attribute that should be hidden, or this cannot be measured."""


class OvercorrectionWarning(FairnessWarning):
    """A correction was too strong: predictions are worse than guessing, or favour some classes."""


class InfeasibleConstraintWarning(FairnessWarning):
    """No candidate meets the fairness constraint, so the least biased candidate is used."""


class InterruptedSearchWarning(FairnessWarning):
    """A search was interrupted, so the best candidate until then is used."""


class MissingGlyphWarning(FairnessWarning):
    """The font of a plot has no glyph for some characters, so the plot shows boxes instead."""


class OverfitWarning(FairnessWarning):
    """A network has memorised its tuning rows: on held-out rows, its bias differs."""


class SmallGroupWarning(FairnessWarning):
    """A group has too few samples to measure its rates well."""


class UninformativeAttributionWarning(FairnessWarning):
    """For every patch, the region classifier predicts the attribute no better than guessing."""
