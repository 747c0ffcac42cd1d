"""The command `vecraft`: imports and runs the subcommand. Each subcommand is one module of `vecraft/commands/`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from vecraft import __version__

if TYPE_CHECKING:
    from vecraft.commands import Command

COMMANDS = {
    "serve": "run a node",
    "demo": "run a node with real input, show what it can do, and keep serving",
    "journal": "read the log: the latest records, one record, all records of a request; repair it; cut off its old part",
    "operations": "list what the log of a running node holds: who wrote what, when, and what became of it",
    "audit": "verify the log with the checkpoints of its hash chains: what was changed, removed or put in",
    "changes": "print the changes of a collection of a running node, and follow them",
    "ingest": "tell, pause, resume, restart and move the ingest of a running node",
    "snapshots": "make, list, verify, prune and delete the snapshots of a running node",
    "restore": "put the state of a stopped node back from a snapshot",
    "topics": "create, describe and check the journal's topics on Kafka",
}
EXAMPLES = """\
examples:
  vecraft demo                          see what it does, with real input
  vecraft serve --data-dir data         run a node; http://127.0.0.1:6333/docs has its API
  vecraft journal tail --data-dir data  what the node has written
  vecraft serve --help                  all settings, with their defaults
"""
EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns the exit status: 0, 1 for a failure, 2 for wrong usage."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and FAISS are imported
    given = sys.argv[1:] if arguments is None else arguments
    if given in ([], ["changes"], ["journal"], ["audit"], ["ingest"], ["snapshots"], ["topics"]):  # incomplete commands
        given = [*given, "--help"]
    command = _command(given[0]) if given[0] in COMMANDS else None
    options = _parser(given[0], command).parse_args(given)
    assert command is not None, "the parser exits for any other input"
    return _run(command, options)


def process() -> NoReturn:
    """Runs the command line of this process, and ends it without finalizing the interpreter.

    Threads that build graphs or read RocksDB may still run, and what they make can be made again. When one of them returned to
    an interpreter that is being finalized, Python would end it within foreign code, which ends the process with SIGABRT.
    """
    try:
        status = main()
    except SystemExit as ended:  # of the parser: 0 for help, 2 for wrong usage
        status = ended.code if isinstance(ended.code, int) else EXIT_USAGE
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader has exited
            stream.flush()
    os._exit(status)


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong, where argparse would print the whole usage. Subcommands get this class, too."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of the command line with the arguments of the subcommand `name`."""
    return _parser(name, _command(name))


def _run(command: Command, options: argparse.Namespace) -> int:
    from vecraft.commands import CommandError
    from vecraft.flags import settings_of
    from vecraft.logs import set_up
    from vecraft.settings import SettingsError

    try:
        settings = settings_of(options)
        set_up(settings)
        return command.run(settings, options)
    except SettingsError as error:
        print(f"vecraft: {error}", file=sys.stderr)
        return EXIT_USAGE
    except CommandError as error:
        for text in str(error).split("; "):
            print(f"vecraft: {text}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of the output has exited; discard what is still buffered
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def _command(name: str) -> Command:
    command: Command = import_module(f"vecraft.commands.{name}")
    return command


def _parser(name: str, command: Command | None) -> argparse.ArgumentParser:
    """The parser of the command line. Only the requested subcommand, `name`, has its arguments."""
    parser = Parser(
        prog="vecraft",
        description="A vector database whose only truth is its journal. `vecraft COMMAND --help` says more about a command.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for known, text in COMMANDS.items():
        subparser = commands.add_parser(known, help=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        if command is not None and known == name:
            command.add_arguments(subparser)
    return parser
