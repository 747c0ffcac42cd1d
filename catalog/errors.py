"""Errors of catalog commands."""


class InvalidConfig(Exception):
    """A configuration value is not allowed. The text names the field and its bound."""
