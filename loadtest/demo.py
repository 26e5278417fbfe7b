"""The demo: a fresh stack, real payments, kills while they flow, and the proof of what remained.

Starts a stack of its own below the home folder (never the one that may be running there), stops it
whatever happens, and writes `demo.json` and `demo.html` into the home folder. Exit code 0 only if
every invariant holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import uvloop
from aiokafka.errors import KafkaError

from loadtest import stack
from loadtest.proof import page, text
from loadtest.proof.run import Setting, demo
from schemas.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

RULES: Final = Path(__file__).parent / "rules.yaml"
STYLE: Final = Path(page.__file__).with_suffix(".css")


def main(argv: list[str]) -> int:
    """Run the demo; 0 if every invariant holds, 1 if one does not or it could not be run."""
    setting = _setting(argv, os.environ)
    home = stack.home()
    folder = home / "demo"
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {line}", flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    environment = {"HEADRACE_RULES_FILE": str(RULES)}
    try:
        document = _on_fresh_stack(folder, environment, setting, say)
    except (stack.NoStack, HeadraceError, KafkaError, OSError, asyncpg.PostgresError) as error:
        print(f"headrace demo: {error}\nThe logs are in {folder / 'logs'}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("headrace demo: interrupted", file=sys.stderr)
        return 130
    (home / "demo.json").write_text(json.dumps(document, indent=1) + "\n")
    (home / "demo.html").write_text(page.render(document, STYLE.read_text()))
    print("\n".join(text.lines(document)))
    print(f"\nfigures: {home / 'demo.json'}\npage:    {home / 'demo.html'}")
    return 0 if document["ok"] else 1


def _on_fresh_stack(
    folder: Path, environment: Mapping[str, str], setting: Setting, say: Callable[[str], None]
) -> dict[str, Any]:
    say(f"starting a fresh stack in {folder}")
    stack.stop(folder, environment)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        stack.start(folder, environment)
        return uvloop.run(_interruptible(demo(folder, setting, say)))
    finally:
        say("stopping the stack")
        stack.stop(folder, environment)


async def _interruptible(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Do the work, unless a signal ends it: it can clean up behind itself then."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await task


def _setting(argv: list[str], env: Mapping[str, str]) -> Setting:
    parser = argparse.ArgumentParser(prog="headrace demo", description=__doc__)
    parser.add_argument("--payments", type=int, default=int(env.get("N", "50000")))
    parser.add_argument("--rate", type=float, default=float(env.get("RATE", "1000")))
    parser.add_argument("--accounts", type=int, default=1_000)
    parser.add_argument("--webhooks", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=int(env.get("SEED", "1")))
    parser.add_argument("--no-kills", action="store_true", help="leave every process alone")
    given = parser.parse_args(argv)
    return Setting(
        payments=given.payments,
        rate=given.rate,
        accounts=given.accounts,
        events=given.webhooks,
        runaways=3,
        seed=given.seed,
        kill=not given.no_kills,
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
