"""The supervisor process: `python -m deploy.local`, configured by the environment alone."""

from __future__ import annotations

import asyncio
import os
import sys

from deploy.local.home import PROJECT
from deploy.local.settings import settings_from
from deploy.local.stack import run

if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(asyncio.run(run(settings_from(os.environ, PROJECT, PROJECT))))
