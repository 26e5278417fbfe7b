"""Fetches Kafka's jars by their locked coordinates and checks each one's SHA-256 before use.

Invariant: no jar reaches a class path unless its bytes hash to the value in `kafka.lock`; what
an interrupted or tampered download left behind is fetched again. Which registry serves them is
the resolver's business, never named here.
"""

from __future__ import annotations

import fcntl
import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_FILE = Path(__file__).with_name("kafka.lock")
_FETCHERS = 4
_TRIES = 3


class FetchError(RuntimeError):
    """A jar could not be had, or is not the locked one."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked artefact."""

    group: str
    artifact: str
    version: str
    sha256: str

    def path(self, repository: Path) -> Path:
        """Where a Maven repository keeps it."""
        folder = repository.joinpath(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}.jar"


def locked_jars(text: str | None = None) -> list[Jar]:
    """The lock file's entries: `group:artifact:version sha256`, one a line."""
    lines = (LOCK_FILE.read_text() if text is None else text).splitlines()
    entries = (line.split() for line in lines if line and not line.startswith("#"))
    return [_jar(coordinate, sha256) for coordinate, sha256 in entries]


def class_path(cache: Path, jars: list[Jar] | None = None, out: IO[str] | None = None) -> str:
    """Every locked jar, checked, as a class path; fetches what the cache lacks."""
    wanted = locked_jars() if jars is None else jars
    repository = cache / "m2"
    missing = [jar for jar in wanted if not is_sound(jar, repository)]
    if missing:
        with _only_one(cache):
            _fetch_all([jar for jar in missing if not is_sound(jar, repository)], repository, out)
    return ":".join(str(jar.path(repository)) for jar in wanted)


def is_sound(jar: Jar, repository: Path) -> bool:
    """True if the cached file is there and has the locked hash."""
    try:
        with jar.path(repository).open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


def _jar(coordinate: str, sha256: str) -> Jar:
    group, artifact, version = coordinate.split(":")
    return Jar(group, artifact, version, sha256)


def _fetch_all(jars: list[Jar], repository: Path, out: IO[str] | None) -> None:
    stream = sys.stderr if out is None else out
    with ThreadPoolExecutor(_FETCHERS) as pool:
        waiting = {pool.submit(_fetch, jar, repository): jar for jar in jars}
        for done, future in enumerate(as_completed(waiting), 1):
            jar = waiting[future]
            try:
                future.result()
            except FetchError:
                pool.shutdown(cancel_futures=True)
                raise
            print(f"kafka jars {done}/{len(jars)}: {jar.artifact} {jar.version}", file=stream)


def _fetch(jar: Jar, repository: Path) -> None:
    reason = ""
    for _ in range(_TRIES):
        path = jar.path(repository)
        path.unlink(missing_ok=True)
        reason = _download(jar, repository)
        if is_sound(jar, repository):
            return
        if not reason:
            reason = "what was downloaded has another SHA-256 than deploy/local/kafka.lock"
    path.unlink(missing_ok=True)
    raise FetchError(
        f"cannot fetch {jar.group}:{jar.artifact}:{jar.version} ({reason}).\n"
        "Check the network or proxy (HTTPS_PROXY) and run the command again: what is already "
        "fetched is kept.\nOr use a Kafka that runs elsewhere: HEADRACE_KAFKA=host:port"
    )


def _download(jar: Jar, repository: Path) -> str:
    """Why the resolver could not fetch it; empty if it says that it did."""
    import requests
    from jgo.maven import MavenContext, PythonResolver

    context = MavenContext(
        resolver=PythonResolver(), repo_cache=repository, local_repos=[], timeout=30
    )
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    try:
        context.resolver.download(artifact)
    except (OSError, RuntimeError, ValueError, requests.RequestException) as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return ""


@contextmanager
def _only_one(cache: Path) -> Iterator[None]:
    """One process fetches at a time; the others wait and then find the jars."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
