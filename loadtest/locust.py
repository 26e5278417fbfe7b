"""The command `headrace locust`: Locust against the running stack, headless by default.

Runs Locust as a process of its own, since it patches sockets for gevent, and hands on its exit
code: 0 only if every answer was as planned. Settings by environment: USERS, SPAWN_RATE, SECONDS,
RATE (requests a second over all users), ACCOUNTS; arguments are Locust's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtest import stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOCUSTFILE: Final = Path(__file__).with_name("locustfile.py")
_INTERACTIVE: Final = {"--web-port", "-P", "--autostart", "--master", "--worker", "--help", "-h"}


def main(argv: list[str]) -> int:
    """Run Locust; its exit code."""
    try:
        running = stack.read(stack.home())
    except stack.NoStack as error:
        print(f"headrace locust: {error}", file=sys.stderr)
        return 1
    target = running.gateways[0]
    command = arguments(f"http://{target.host}:{target.port}", os.environ, argv)
    path = os.pathsep.join(filter(None, (str(stack.PROJECT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, "USERS": os.environ.get("USERS", "20")}
    child = subprocess.Popen([sys.executable, "-m", "locust", *command], env=env)
    try:
        return child.wait()
    except KeyboardInterrupt:
        return child.wait()


def arguments(url: str, env: Mapping[str, str], more: Sequence[str]) -> list[str]:
    """Return Locust's arguments: headless for a bounded time, unless told to be interactive."""
    users = env.get("USERS", "20")
    given = ["-f", str(LOCUSTFILE), "--host", url, "--users", users]
    given += ["--spawn-rate", env.get("SPAWN_RATE", users)]
    if not _INTERACTIVE & {argument.partition("=")[0] for argument in more}:
        given += ["--headless", "--run-time", f"{env.get('SECONDS', '30')}s", "--only-summary"]
    return [*given, *more]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
