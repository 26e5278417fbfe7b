"""The commands that live in loadtest: demo, verify, trace, locust, and benches and drills by name.

Each is a module with `main(argv) -> int`, imported only when it is asked for.
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING, Any

from deploy.local.home import PROJECT

if TYPE_CHECKING:
    import argparse

    from deploy.local.settings import Settings

_OPEN: Any = {"add_help": False, "allow_abbrev": False}
_MAIN = re.compile(r"^def main\(", re.MULTILINE)
_SINGLE = {
    "demo": "run real payments and webhooks, kill processes meanwhile, prove nothing was lost",
    "verify": "prove on the running stack that log, ledger and lake agree",
    "trace": "show one payment's way through every topic: headrace trace PAYMENT_ID",
    "locust": "drive the running stack with Locust, headless by default",
}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them to the parser. Options they know themselves are passed on, `--help` too."""
    for name, text in _SINGLE.items():
        single = commands.add_parser(name, help=text, **_OPEN)
        single.set_defaults(command=_run_single, module=f"loadtest.{name}", passes_on=True)
    bench = commands.add_parser("bench", help="measure one part: headrace bench NAME", **_OPEN)
    bench.add_argument("name", nargs="?", help="which bench; none lists them")
    bench.set_defaults(command=_bench, passes_on=True)
    drill = commands.add_parser(
        "drill", help="run one fault drill, or all: headrace drill", **_OPEN
    )
    drill.add_argument("name", nargs="?", help="which drill; 'list' lists them, none runs all")
    drill.set_defaults(command=_drill, passes_on=True)


def _run_single(_: Settings, arguments: argparse.Namespace) -> int:
    return _run(arguments.module, arguments.rest)


def _bench(_: Settings, arguments: argparse.Namespace) -> int:
    return _named("loadtest.bench", "bench", arguments.name, arguments.rest)


def _drill(_: Settings, arguments: argparse.Namespace) -> int:
    if arguments.name is not None or {"-h", "--help"} & set(arguments.rest):
        return _named("loadtest.drills", "drill", arguments.name, arguments.rest)
    failed = []
    for name in _names("loadtest.drills"):
        print(f"== drill {name}", flush=True)
        if _run(f"loadtest.drills.{name}", arguments.rest):
            failed.append(name)
    if failed:
        print(f"headrace: drills failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _named(package: str, kind: str, name: str | None, rest: list[str]) -> int:
    names = _names(package)
    wanted = "" if name is None else name.replace("-", "_")
    if wanted in names:
        return _run(f"{package}.{wanted}", rest)
    unknown = name not in {None, "list"}
    listing = ", ".join(names) or "none here"
    start = f"headrace: there is no {kind} {name}; " if unknown else ""
    print(f"{start}{kind} names: {listing}", file=sys.stderr if unknown else sys.stdout)
    return 2 if unknown else 0


def _names(package: str) -> list[str]:
    """The modules of a package that have a `main` to run, found without importing them."""
    folder = PROJECT.joinpath(*package.split("."))
    return sorted(path.stem for path in folder.glob("*.py") if _MAIN.search(path.read_text()))


def _run(module: str, argv: list[str]) -> int:
    code: int = importlib.import_module(module).main(argv)
    return code
