"""Errors of catalog commands."""

from payload.errors import BoundError


class InvalidConfig(BoundError):
    """A configuration value is not allowed. The text names the field and its bound."""
