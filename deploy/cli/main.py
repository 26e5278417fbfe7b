"""Parses the command line and calls one command; what a user must act on is one clear line.

Exit codes: 0 done, 1 it failed (the text says what to do), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from deploy.cli import ledger, load, stack
from deploy.local.control import ControlError
from deploy.local.home import PROJECT
from deploy.local.jars import FetchError
from deploy.local.server import ServerError
from deploy.local.settings import Settings, settings_from
from schemas.environment import SettingError

_EPILOG = """\
Settings come from HEADRACE_ variables: HEADRACE_HOME moves data and logs, HEADRACE_KAFKA or
HEADRACE_LEDGER_DSN and its like replace a piece, HEADRACE_STREAMS and HEADRACE_GATEWAYS set counts.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not getattr(arguments, "passes_on", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        aside = getattr(arguments, "own_variables", ())
        variables = {name: text for name, text in os.environ.items() if name not in aside}
        settings = settings_from(variables, PROJECT, Path.cwd())
        os.environ["HEADRACE_HOME"] = str(settings.home)
        return _call(arguments, settings)
    except (SettingError, ControlError, ServerError, FetchError) as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _call(arguments: argparse.Namespace, settings: Settings) -> int:
    code: int = arguments.command(settings, arguments)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace",
        description="A streaming payments backend on this machine: start it, load it, prove it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stack.add_commands(commands)
    load.add_commands(commands)
    ledger.add_commands(commands)
    return parser
