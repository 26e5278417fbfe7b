"""Compares the ledger's tables with what the replayed log came to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from loadtest.drills.ledger_check import GENESIS, Evidence, Proof
from loadtest.drills.ledger_words import Place

Lines = Sequence[Mapping[str, Any]]
SHOWN = 3


def differences(evidence: Evidence, proof: Proof) -> Iterator[str]:
    """Say how the tables differ; each value of each is compared."""
    tables, wanted = evidence.tables, expected(evidence, proof)
    for name, rows in wanted.items():
        found = [tuple(line.values()) for line in tables[name]]
        proof.counts[f"{name} compared"] += len(rows)
        if len(found) != len(set(found)):
            yield f"{name}: the same line twice"
        missing, extra = rows - set(found), set(found) - rows
        if missing or extra:
            yield (
                f"{name}: {len(missing)} missing {sorted(missing, key=str)[:SHOWN]},"
                f" {len(extra)} too many {sorted(extra, key=str)[:SHOWN]}"
            )


def expected(evidence: Evidence, proof: Proof) -> dict[str, set[tuple[Any, ...]]]:
    """Return, by table, the lines that there must be."""
    model = proof.model
    return {
        "accounts": {
            (a.account_id, a.tenant, a.currency, a.floor, a.cap)
            + (a.debits_frozen, a.credits_frozen, a.closed)
            for a in model.accounts.values()
        },
        "shares": {
            (account_id, partition, share.posted, share.held, share.version)
            for (account_id, partition), share in model.shares.items()
            if share.version
        }
        | {
            (a.account_id, a.home, 0, 0, 0)
            for a in model.accounts.values()
            if not model.shares[a.account_id, a.home].version
        },
        "balances": {
            (a.account_id, *_balance(proof, a.account_id)) for a in model.accounts.values()
        },
        "holds": {
            (h.hold_id, h.partition, h.leg["source"], h.leg["destination"], h.leg["currency"])
            + (h.leg["amount_minor"], h.remaining, h.captured, h.expires_at_us, h.state)
            for h in model.holds.values()
        },
        "reversals": {
            (*place, total.minor) for place, total in model.paid_back.items() if total.past
        },
        "identities": {
            (sha256(claimed.encode()).hexdigest()[:32], *row.place)
            for claimed, row in model.claims.items()
        },
        "partitions": set(_fences(evidence, proof)),
        "rows": {
            (*place, e["command_offset"], e["type"], e["reason"], e["repeated"], e["chain_hash"])
            for place, e in _own_reasons(proof)
        },
        "entries": set(_entries(proof)),
    }


def _balance(proof: Proof, account_id: str) -> tuple[int, int, int]:
    shares = [s for (name, _), s in proof.model.shares.items() if name == account_id]
    posted, held = sum(s.posted for s in shares), sum(s.held for s in shares)
    return posted, held, posted - held


def _fences(evidence: Evidence, proof: Proof) -> Iterator[tuple[Any, ...]]:
    for number, records in evidence.commands.items():
        rows = len(records) - proof.poisoned[number]
        last = proof.events.get((number, rows))
        yield (
            number,
            rows + 1,
            proof.log_time_us[number],
            proof.poisoned[number],
            last["chain_hash"] if last else GENESIS,
        )


def _own_reasons(proof: Proof) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """The reason of a hold's end is told by its event, and is no reason of a refusal."""
    for place, event in proof.events.items():
        refused = event["type"].endswith(".rejected")
        yield place, event if refused else {**event, "reason": None}


def _entries(proof: Proof) -> Iterator[tuple[Any, ...]]:
    for place, event in proof.events.items():
        if not event["repeated"]:
            for number, entry in enumerate(event["entries"]):
                yield (*place, number, *(entry[name] for name in ENTRY))


ENTRY = ("account_id", "currency", "version", "amount_minor", "posted_minor", "held_minor")
