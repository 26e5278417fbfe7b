"""Sets up what the peers need, outside of the project's own environment.

Quix Streams gets a venv of its own from a hashed lock; Kafka Streams its jars by locked coordinates
and SHA-256, and is compiled where a JDK is installed. Nothing of it touches `.venv`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from deploy.local.jars import class_path, locked_jars
from loadtest.bench import streams_records as records
from loadtest.bench.report import say

HERE: Final = Path(__file__).parent
QUIX_LOCK: Final = HERE / "quix.lock"
STREAMS_LOCK: Final = HERE / "kafka_streams.lock"
SOURCE: Final = HERE / "PlainTask.java"
RELEASE: Final = "17"


def quix(folder: Path) -> Path | None:
    """Return the Python of the Quix venv; None, having said why, where it can't be made."""
    venv = folder / f"quix-{_digest(QUIX_LOCK)}"
    python = venv / "bin" / "python"
    if (venv / "ready").exists():
        return python
    say("  making a venv for Quix Streams")
    made = _run([sys.executable, "-m", "venv", "--clear", str(venv)])
    uv = Path(sys.executable).with_name("uv")
    sync = [str(uv), "pip", "sync", "--quiet", "--require-hashes", str(QUIX_LOCK)]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(QUIX_LOCK)]
    if made is None and (_run(sync, VIRTUAL_ENV=str(venv)) is None or _run(pip) is None):
        (venv / "ready").touch()
        return python
    say(f"  Quix Streams is left out: {QUIX_LOCK.name} could not be installed")
    return None


def kafka_streams(folder: Path, cache: Path) -> tuple[str, Path] | None:
    """Return the class path and the folder of schemas; None, having said why, without a JDK."""
    javac = shutil.which("javac")
    if javac is None:
        say("  Kafka Streams is left out: no javac; install a JDK of 17 or newer to measure it")
        return None
    jars = class_path(cache, locked_jars(STREAMS_LOCK.read_text()))
    classes = folder / f"kafka-streams-{_digest(SOURCE)}"
    if not (classes / "PlainTask.class").exists():
        classes.mkdir(parents=True, exist_ok=True)
        wrong = _run([javac, "--release", RELEASE, "-cp", jars, "-d", str(classes), str(SOURCE)])
        if wrong is not None:
            say(f"  Kafka Streams is left out: it does not compile: {wrong}")
            return None
    (classes / "in.avsc").write_text(json.dumps(records.IN_SCHEMA))
    (classes / "out.avsc").write_text(json.dumps(records.OUT_SCHEMA))
    return f"{classes}:{jars}", classes


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _run(argv: list[str], **variables: str) -> str | None:
    """Run a command; returns what it said where it failed."""
    done = subprocess.run(
        argv, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()[-500:]
