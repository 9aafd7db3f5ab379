"""Warnings of their own class, so that a user can turn one off, or into an error, by name."""


class FairnessWarning(UserWarning):
    """Base of skfair's warnings about a method that may not do what it is used for."""


class AmplificationWarning(FairnessWarning):
    """The bias amplifier did not find a bias that is easier than the classes."""


class FallbackWarning(FairnessWarning):
    """A method did not show itself better than what it starts from, which was used instead."""


class LabelOrderWarning(FairnessWarning):
    """A network is worse than guessing: its classes seem to be in another order than the labels."""


class LeakageWarning(FairnessWarning):
    """A network still tells an attribute that was to be hidden, or it cannot be known whether."""


class OvercorrectionWarning(FairnessWarning):
    """A correction went far: predictions are worse than guessing, or favour some classes."""


class InfeasibleConstraintWarning(FairnessWarning):
    """No candidate meets the fairness constraint; the least biased one was taken."""


class InterruptedSearchWarning(FairnessWarning):
    """A search was interrupted, and the best of what it had seen was taken."""


class OverfitWarning(FairnessWarning):
    """A network has learned rows by heart: on others its bias is another one."""


class SmallGroupWarning(FairnessWarning):
    """A group has so few samples that its rates say little."""


class UninformativeAttributionWarning(FairnessWarning):
    """The region classifier predicts the attribute from no patch better than guessing would."""
