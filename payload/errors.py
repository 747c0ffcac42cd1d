"""Errors of values that a caller gave."""


class BoundError(ValueError):
    """A value is of the right form, but breaks a bound, or lacks something it needs. The text is `path: reason`.

    A value of the wrong form is another ValueError: requests tell the two apart by their status.
    """
