"""The ledger's commands: audit, export, migrate, index; `headrace ledger` calls them here.

Progress goes to stderr, results to stdout. Exit codes: 0 done, 1 something is wrong with the
ledger, 2 the command or its settings are, or the database does not answer, 141 whoever read an
export has left, such as `head`: what a shell says of any command that ends by it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import orjson

from ledger_writer import audit, index, migrate
from ledger_writer.audit_export import audit_export, manifest_path
from ledger_writer.detach import detach
from ledger_writer.export import FORMATS, Range, export_journal, export_statement
from ledger_writer.progress import Progress
from schemas.environment import SettingError, read
from schemas.errors import HeadraceError, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger_writer.export import Out

_END_US: Final = 2**62
_STDOUT: Final = "-"
READER_LEFT: Final = 141


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except _ReaderLeft:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
    except Rejected as error:
        print(f"headrace ledger: --{error.code}: {error.detail}", file=sys.stderr)
        return 2
    except (SettingError, HeadraceError, OSError, asyncpg.PostgresError) as error:
        print(f"headrace ledger: {error}", file=sys.stderr)
        return 2
    return code


def _audit(arguments: argparse.Namespace) -> int:
    if arguments.export is None:
        return audit.main()
    result = audit_export(Path(arguments.export), Progress("ledger audit"))
    print(orjson.dumps(result).decode())
    return 0 if result["ok"] else 1


def _migrate(_: argparse.Namespace) -> int:
    return migrate.main()


def _index(_: argparse.Namespace) -> int:
    return index.main()


def _detach(arguments: argparse.Namespace) -> int:
    dsn = read(os.environ, "HEADRACE_LEDGER_OWNER_DSN")["ledger_owner_dsn"]
    told = asyncio.run(
        detach(
            dsn,
            arguments.before,
            None if arguments.export is None else Path(arguments.export),
            drop=arguments.drop,
            dry_run=arguments.dry_run,
        )
    )
    print(orjson.dumps(told).decode())
    return 0


def _export_journal(arguments: argparse.Namespace) -> int:
    wanted = Range(arguments.partition, arguments.first, arguments.last)
    if arguments.last is not None and arguments.last < (arguments.first or 1):
        raise Rejected("to", f"{arguments.last} is before --from {arguments.first}")
    with _output(arguments.output) as out:
        progress = Progress("ledger export")
        manifest = asyncio.run(export_journal(_reader(), wanted, arguments.format, out, progress))
    path = arguments.manifest
    if path is None and arguments.output != _STDOUT:
        path = manifest_path(Path(arguments.output))
    if path is not None:
        Path(path).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
    print(f"ledger export: {manifest['rows']:,} rows, manifest {path}", file=sys.stderr)
    return 0


def _export_statement(arguments: argparse.Namespace) -> int:
    between = arguments.first, arguments.last
    if between[1] <= between[0]:
        raise Rejected("to", "must be later than --from")
    with _output(arguments.output) as out:
        lines = asyncio.run(
            export_statement(_reader(), arguments.account, between, arguments.format, out)
        )
    print(f"ledger export: {lines:,} entries of {arguments.account}", file=sys.stderr)
    return 0


def _reader() -> str:
    dsn = read(os.environ, "HEADRACE_LEDGER_READER_DSN")["ledger_reader_dsn"]
    assert isinstance(dsn, str)
    return dsn


@contextmanager
def _output(path: str) -> Iterator[Out]:
    """Write to stdout, or to a file that appears under its name only when it is whole."""
    if path == _STDOUT:
        stdout = _Stdout()
        try:
            yield stdout
            stdout.write("", flush=True)
        except (OSError, HeadraceError) as error:
            if stdout.left:
                raise _ReaderLeft from error
            raise
        return
    part = Path(path + ".part")
    with part.open("w", encoding="utf-8", newline="") as out:
        yield out
    part.replace(path)


class _ReaderLeft(Exception):
    """Nobody reads stdout any more."""


class _Stdout:
    """Standard output; its breaking is told from a broken connection to the database.

    `left`: whoever read it has gone. To leave a copy by an error breaks its connection as well.
    """

    left = False

    def write(self, text: str, /, *, flush: bool = False) -> None:
        try:
            print(text, end="", flush=flush)
        except BrokenPipeError:
            self.left = True
            raise


def _position(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number < 2**53:
        raise argparse.ArgumentTypeError(f"{text!r} is not a position: a whole number from 1 up")
    return number


def _before(text: str) -> tuple[int | None, int | None]:
    """Return a position or a time."""
    return (_position(text), None) if text.isdecimal() else (None, _time_us(text))


def _partition(text: str) -> int:
    if not text.isdecimal() or int(text) > 1023:
        raise argparse.ArgumentTypeError(f"{text!r} is not a partition: a number from 0 to 1023")
    return int(text)


def _time_us(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        problem = f"{text!r} is not a time: RFC 3339, such as 2026-01-31T00:00:00Z"
        raise argparse.ArgumentTypeError(problem) from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace ledger", description="Prove and run the ledger."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    audits = commands.add_parser(
        "audit", help="prove the ledger from Postgres alone, or an exported journal from its file"
    )
    audits.add_argument("--export", metavar="PATH", help="a file of `export journal --output`")
    audits.set_defaults(run=_audit)
    migrates = commands.add_parser("migrate", help="create or upgrade the tables, as their owner")
    migrates.set_defaults(run=_migrate)
    indexes = commands.add_parser("index", help="bring past balances and search up to date")
    indexes.set_defaults(run=_index)
    detaches = commands.add_parser("detach", help="detach the journal's beginning, as its owner")
    detaches.add_argument(
        "--before", type=_before, required=True, metavar="POSITION|TIME", help="what is to go"
    )
    detaches.add_argument(
        "--export", metavar="PATH", help="a file of `export journal` of the range"
    )
    detaches.add_argument(
        "--drop", action="store_true", help="drop the tables, not keep them aside"
    )
    detaches.add_argument("--dry-run", action="store_true", help="check all, and change nothing")
    detaches.set_defaults(run=_detach)
    exports = commands.add_parser("export", help="write rows or a statement as JSON lines or CSV")
    kinds = exports.add_subparsers(required=True, metavar="WHAT")
    journal = kinds.add_parser("journal", help="rows of the journal, as an audit needs them")
    journal.add_argument("--partition", type=_partition, help="only this one")
    journal.add_argument("--from", dest="first", type=_position, metavar="POSITION")
    journal.add_argument("--to", dest="last", type=_position, metavar="POSITION", help="included")
    journal.add_argument("--manifest", help="where it goes; beside --output when not given")
    journal.set_defaults(run=_export_journal)
    statement = kinds.add_parser("statement", help="an account's entries with running balance")
    statement.add_argument("account", help="its id")
    statement.add_argument("--from", dest="first", type=_time_us, default=0, metavar="TIME")
    statement.add_argument(
        "--to", dest="last", type=_time_us, default=_END_US, metavar="TIME", help="excluded"
    )
    statement.set_defaults(run=_export_statement)
    for each in (journal, statement):
        each.add_argument("--format", choices=FORMATS, default=FORMATS[0])
        each.add_argument("--output", default=_STDOUT, help="a file; stdout when not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
