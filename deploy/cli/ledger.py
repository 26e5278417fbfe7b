"""`headrace ledger ...`: the ledger's own commands, pointed at the running stack's database.

Each runs as a process of `ledger_writer.cli`. A DSN that the environment has wins over the stack's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from deploy.local.home import Home
from deploy.local.stackfile import read_stack

if TYPE_CHECKING:
    import argparse

    from deploy.local.settings import Settings

_DSNS: Final = {
    "HEADRACE_LEDGER_READER_DSN": "ledger_reader",
    "HEADRACE_LEDGER_DSN": "ledger_writer",
    "HEADRACE_LEDGER_OWNER_DSN": "ledger_owner",
}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add it to the parser; options are passed on, `--help` too."""
    options: dict[str, Any] = {"add_help": False, "allow_abbrev": False}
    text = "audit, export, detach, index or migrate the ledger: headrace ledger audit"
    ledger = commands.add_parser("ledger", help=text, **options)
    ledger.set_defaults(command=_ledger, passes_on=True, own_variables=tuple(_DSNS))


def _ledger(settings: Settings, arguments: argparse.Namespace) -> int:
    stack = read_stack(Home(settings.home)) or {}
    roles = stack.get("roles", {})
    given = {name: roles[role] for name, role in _DSNS.items() if role in roles}
    if "partitions" in stack:
        given["HEADRACE_PARTITIONS"] = str(stack["partitions"])
    command = [sys.executable, "-m", "ledger_writer.cli", *arguments.rest]
    return subprocess.run(command, env=given | os.environ, check=False).returncode
