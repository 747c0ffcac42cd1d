"""What is wrong with a catalog command."""


class InvalidConfig(Exception):
    """A collection cannot be as asked. The text names the field and its bound."""
