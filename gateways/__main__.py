"""`python -m gateways`: one gateway process, configured by the environment alone."""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop

from gateways.app import Process
from gateways.settings import from_environment
from schemas import logs
from schemas.environment import SettingError


def main() -> int:
    """Run until SIGTERM; 2 when the settings are wrong."""
    try:
        settings = from_environment(os.environ)
        logs.configure("gateway", settings.name, settings.log_level)
        process = Process(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(process.run())
    except SettingError as error:
        print(f"gateways: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
