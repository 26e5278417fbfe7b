"""Proves an exported journal from its file and the manifest beside it, without any database.

Verifies the chain of each partition from where the manifest says it begins to where it ends, and
derives every balance anew; a part that does not begin at position 1 takes each account's share, and
holds, links and flags that began before it, as they stood when it first tells of them. Any byte of
the file that was changed is found, and its row is named.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from ledger_writer.export import FORM, FORMATS
from ledger_writer.exported import CSV_HEADER, read_csv, read_json
from ledger_writer.findings import Watch
from ledger_writer.model import OPENED
from ledger_writer.verify import FINDINGS_MAX, Chain, Finding, Verifier
from schemas.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger_writer.model import Row
    from ledger_writer.progress import Progress

MANIFEST: Final = ".manifest.json"
SAY_EVERY: Final = 10_000


def manifest_path(path: Path) -> Path:
    """Return where the manifest of an export lies."""
    return path.with_name(path.name + MANIFEST)


def audit_export(path: Path, progress: Progress, begun: Verifier | None = None) -> dict[str, Any]:
    """Return what was checked and found; `ok` is true when nothing was.

    `begun` is a verifier that has taken all that is before the file, and goes on from there.
    """
    manifest = manifest_of(path)
    watch = Watch()
    verifier = begun or Verifier()
    for part in manifest["partitions"] if begun is None else ():
        chain = Chain(part["partition"], part["from"] - 1, bytes.fromhex(part["chain_hash_before"]))
        chain.open_start = part["from"] > 1
        if chain.open_start:
            verifier.derived.partial.add(part["partition"])
        verifier.chains[part["partition"]] = chain
    findings = list(islice(_findings(path, manifest, verifier, progress), FINDINGS_MAX))
    return watch.told(verifier, findings) | {"partitions": manifest["partitions"]}


def _findings(
    path: Path, manifest: dict[str, Any], verifier: Verifier, progress: Progress
) -> Iterator[Finding]:
    read = read_csv if manifest["format"] == "csv" else read_json
    parts = {part["partition"]: part for part in manifest["partitions"]}
    order = [part["partition"] for part in manifest["partitions"]]
    current = order.pop(0)
    digest, number = sha256(), 0
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            digest.update(line.encode(errors="surrogateescape"))
            if number == 1 and manifest["format"] == "csv":
                if line != CSV_HEADER:
                    yield Finding(current, 0, "line 1 is not the header")
                continue
            chain = verifier.chain(current)
            if order and chain.position >= parts[current]["to"]:
                current = order.pop(0)
                chain = verifier.chain(current)
            try:
                row = read(line)
                numbered = list(_numbered(verifier, current, row))
                found = [*numbered, *verifier.take(current, row)]
            except (ValueError, TypeError, AttributeError, UnicodeError, OverflowError) as error:
                told = f"line {number} can't be read: {error}"
                yield Finding(current, chain.position + 1, told)
                chain.position += 1
                continue
            yield from found
            if not number % SAY_EVERY:
                progress.say(f"partition {current}", verifier.rows)
    for part in manifest["partitions"]:
        chain = verifier.chain(part["partition"])
        if chain.position != part["to"]:
            problem = f"rows end at {chain.position}, the manifest at {part['to']}"
            yield Finding(part["partition"], chain.position, problem)
        elif chain.seal.hex() != part["chain_hash"]:
            yield Finding(part["partition"], chain.position, "the manifest has another chain hash")
    if digest.hexdigest() != manifest["sha256"]:
        yield Finding(0, 0, "the file is not the one that was exported: its SHA-256 differs")


def _numbered(verifier: Verifier, partition: int, row: Row) -> Iterator[Finding]:
    """Check numbers of accounts, which the chain does not run over, by those of before.

    What an account that was opened elsewhere is numbered at first is for its opening row to prove.
    """
    numbers = verifier.derived.numbers
    told = {entry.account_id: entry.account_no for entry in row.entries}
    if row.type == OPENED and row.repeats is None:
        told[row.home_account] = row.position << 10 | partition
    for account_id, number in told.items():
        known = numbers.setdefault(account_id, number)
        if known != number:
            problem = f"{account_id} is number {known}, not {number}"
            yield Finding(partition, row.position, problem)


def manifest_of(path: Path) -> dict[str, Any]:
    """Return the manifest of an export; Rejected when there is none, or none we know."""
    try:
        manifest = orjson.loads(manifest_path(path).read_bytes())
        known = manifest["form"] == FORM and manifest["format"] in FORMATS
        for part in manifest["partitions"]:
            bytes.fromhex(part["chain_hash_before"]), part["from"], part["to"], part["partition"]
        assert isinstance(manifest, dict)
    except OSError as error:
        raise Rejected("export", f"{path}: its manifest can't be read: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Rejected("export", f"{manifest_path(path)} is not a manifest: {error!r}") from error
    if not known:
        raise Rejected("export", f"{path} has a form or format that this version does not know")
    if not path.is_file():
        raise Rejected("export", f"{path} is not a file")
    return manifest
