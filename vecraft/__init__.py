"""The command `vecraft` and its subcommands, the settings, an HTTP client for commands, and the wiring of all parts of a node.

May import every package; no package imports it.
"""

from importlib.metadata import version

__version__ = version("vecraft")
