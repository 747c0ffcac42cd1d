"""The command `vecraft`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from vecraft import __version__

if TYPE_CHECKING:
    from vecraft.settings import Settings

EXIT_USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns the exit status: 0, 1 for a failure, 2 for wrong usage."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and FAISS are imported
    from vecraft.settings import SettingsError, load_settings

    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    config = options.pop("config", None) or os.environ.get("VECRAFT_CONFIG")
    own: dict[str, Any] = {name: options.pop(name) for name in ("action", "count", "follow", "what", "once") if name in options}
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    for library in ("faiss", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        settings = load_settings({k: v for k, v in options.items() if v is not None}, Path(config) if config else None)
    except SettingsError as error:
        print(f"vecraft: {error}", file=sys.stderr)
        return EXIT_USAGE
    from journal.log import JournalError
    from vecraft.roles import StartError

    try:
        return _run(command, settings, own)
    except (StartError, JournalError) as error:
        for text in str(error).split("; "):
            print(f"vecraft: {text}", file=sys.stderr)
        return 1


def _run(command: str, settings: Settings, own: dict[str, Any]) -> int:
    """Runs a command; what it needs is imported here, since not every command needs all. Returns the exit status."""
    match command, own.get("action"):
        case "serve", _:
            from vecraft.node import Node

            Node(settings).run()
            return 0
        case "demo", _:
            from vecraft.demo import run_demo

            return run_demo(settings, once=own["once"])
        case "topics", action:
            from vecraft.topics_tool import check, create, describe

            {"create": create, "describe": describe, "check": check}[str(action)](settings)
            return 0
        case "journal", "tail":
            from vecraft.journal_tool import tail

            tail(settings, own["count"], own["follow"])
            return 0
        case _:
            from vecraft.journal_tool import show

            if show(settings, own["what"]):
                return 0
            print(f"vecraft: nothing found for {own['what']}", file=sys.stderr)
            return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vecraft", description="A vector database whose only truth is its journal.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_settings(commands.add_parser("serve", help="run a node"))
    demo = commands.add_parser("demo", help="run a node with real input, show what it can do, and keep serving")
    _add_settings(demo)
    demo.add_argument("--once", action="store_true", help="end after the show")
    topics = commands.add_parser("topics", help="the journal's topics on Kafka").add_subparsers(dest="action", required=True)
    for action, text in (
        ("create", "create those that are missing, and check all"),
        ("describe", "print what they are like"),
        ("check", "say which promises of the preset they would break"),
    ):
        _add_settings(topics.add_parser(action, help=text))
    journal = commands.add_parser("journal", help="read the log").add_subparsers(dest="action", required=True)
    tail = journal.add_parser("tail", help="print the latest records")
    tail.add_argument("--count", type=int, default=10, help="how many (default: 10)")
    tail.add_argument("--follow", action="store_true", help="go on with new ones")
    _add_settings(tail)
    show = journal.add_parser("show", help="print a record, or all of a request")
    show.add_argument("what", help="topic/partition/offset, or a request id")
    _add_settings(show)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting, made from the table."""
    from vecraft.settings import Settings

    parser.add_argument("--config", help="TOML file with settings (VECRAFT_CONFIG)")
    for name, field in Settings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        text = f"{field.description} (VECRAFT_{name.upper()}, default: {field.default})"
        if field.annotation is bool:
            parser.add_argument(flag, dest=name, action="store_true", default=None, help=text)
        else:
            choices = [c for c in get_args(field.annotation) if isinstance(c, str)] or None
            parser.add_argument(flag, dest=name, choices=choices, default=None, help=text)


if __name__ == "__main__":
    sys.exit(main())
