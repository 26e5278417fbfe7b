"""Where Postgres may run when we are root: it refuses root, so it needs a user and open folders.

Invariant: no permission of a folder that is not ours is widened. Where the user cannot enter the
project's folders (a project below /root, say), data and programs live in one of root's own below
/var/lib/headrace instead, which the project's folder names and owns.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

ELSEWHERE = Path("/var/lib/headrace")
_USERS = ("postgres", "nobody")
_NOTE = "elsewhere"
_OWNER = "owner"


@dataclass(frozen=True, slots=True)
class User:
    """Who runs the server."""

    name: str
    uid: int
    gid: int


def server_user() -> User | None:
    """The user to drop to; None if we are not root and the server runs as we do."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(name, entry.pw_uid, entry.pw_gid)
    raise RuntimeError(
        f"Postgres does not run as root and this machine has none of the users {_USERS}: add one "
        "(useradd --system postgres), or run headrace as another user"
    )


def can_enter(user: User, folder: Path) -> bool:
    """True if the user may pass through this folder and all above it."""
    path = folder.resolve()
    return all(_may_enter(user, part) for part in (path, *path.parents))


def place_for(folder: Path, user: User | None) -> Path:
    """Where the server's data goes: `folder`, or a place elsewhere that the user can enter."""
    folder.mkdir(parents=True, exist_ok=True)
    if user is None or (can_enter(user, folder) and not (folder / _NOTE).exists()):
        return folder
    note = folder / _NOTE
    if note.exists() and Path(note.read_text().strip()).exists():
        return Path(note.read_text().strip())
    _remove_orphans()
    place = ELSEWHERE / secrets.token_hex(8)
    place.mkdir(parents=True, mode=0o755)
    (place / _OWNER).write_text(str(note.resolve()))
    note.write_text(str(place))
    return place


def reachable_programs(programs: Path, user: User | None) -> Path:
    """The installation of `programs` (its bin folder), or a copy that the user can enter."""
    if user is None or can_enter(user, programs):
        return programs
    # A wheel: package/pginstall/bin, with the libraries in package.libs beside the package.
    package = programs.parents[1]
    found = (programs / "postgres").stat()
    copy = ELSEWHERE / f"programs-{found.st_mtime_ns:x}-{found.st_size:x}"
    if not copy.exists():
        partial = copy.with_name(f".{copy.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(programs.parent, partial / package.name / programs.parent.name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name)
        partial.chmod(0o755)
        try:
            partial.rename(copy)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    return copy / programs.relative_to(package.parent)


def give(path: Path, user: User | None) -> Path:
    """Make the user the owner of one file or folder of ours."""
    if user is not None:
        os.chown(path, user.uid, user.gid)
    return path


def _remove_orphans() -> None:
    """Remove data whose project folder was deleted or no longer names it."""
    for owner in ELSEWHERE.glob(f"*/{_OWNER}"):
        note = Path(owner.read_text().strip())
        if not note.exists() or note.read_text().strip() != str(owner.parent):
            shutil.rmtree(owner.parent)


def _may_enter(user: User, path: Path) -> bool:
    found = path.stat()
    if found.st_uid == user.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == user.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
