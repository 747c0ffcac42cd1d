"""`python -m vecraft` is the command `vecraft`."""

from vecraft.cli import process

process()
