"""The command with its subcommands, the settings, an HTTP client for them, and the one place where the parts are wired together.

May import everything; nothing imports it.
"""

from importlib.metadata import version

__version__ = version("vecraft")
