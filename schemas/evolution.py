"""Schema evolution: full-transitive compatibility and the id lock.

The `.avsc` files are the source of truth. A change takes effect when it is locked (`python -m
schemas.evolution`): each subject's newest locked version must equal its `.avsc`, be able to read
every version before it and be readable by it (Apache Avro's own checker decides). Locking never
rewrites history, it appends to it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas.codegen import fingerprint
from schemas.topics import TOPICS
from schemas.wire import AVRO_DIR


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a subject's `.avsc` can't stand as it is; `field` is a dotted path or ""."""

    subject: str
    field: str
    detail: str

    def __str__(self) -> str:
        where = f"{self.subject}, field {self.field}" if self.field else self.subject
        return f"{where}: {self.detail}"


def problems(avro_dir: Path = AVRO_DIR) -> list[Problem]:
    """Return every incompatible, unlocked or missing schema below `avro_dir`."""
    found = []
    for topic in TOPICS.values():
        if topic.subject is None:
            continue
        current = avro_dir / f"{topic.name}.avsc"
        if not current.exists():
            found.append(Problem(topic.subject, "", f"{current} is missing"))
            continue
        versions = _lock(avro_dir)["subjects"].get(topic.subject, [])
        found += _against_history(avro_dir, topic.subject, current.read_text(), versions)
        if not found and (not versions or versions[-1]["sha256"] != _sha256(current.read_text())):
            detail = f"{current.name} has changed: run `python -m schemas.evolution` to lock it"
            found.append(Problem(topic.subject, "", detail))
    return found


def lock(avro_dir: Path = AVRO_DIR) -> list[str]:
    """Append every changed, compatible schema to the lock; return what was locked."""
    document, locked = _lock(avro_dir), []
    taken = [v["id"] for versions in document["subjects"].values() for v in versions]
    for topic in TOPICS.values():
        if topic.subject is None:
            continue
        text = (avro_dir / f"{topic.name}.avsc").read_text()
        versions = document["subjects"].setdefault(topic.subject, [])
        if versions and versions[-1]["sha256"] == _sha256(text):
            continue
        number, schema_id = len(versions) + 1, max(taken, default=0) + 1
        taken.append(schema_id)
        versions.append({"id": schema_id, "version": number, "sha256": _sha256(text)})
        target = avro_dir / "history" / f"{topic.subject}.v{number}.avsc"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
        locked.append(f"{topic.subject} v{number} as id {schema_id}")
    (avro_dir / "lock.json").write_text(json.dumps(document, indent=2) + "\n")
    return locked


def main() -> int:
    """Lock what has changed, unless it is incompatible."""
    blocking = [p for p in problems() if "run `python -m" not in p.detail]
    for problem in blocking:
        print(f"incompatible: {problem}", file=sys.stderr)
    if blocking:
        print("Add fields with defaults; never change a type or remove a field.", file=sys.stderr)
        return 1
    for line in lock():
        print(f"locked {line}")
    return 0


def _against_history(
    avro_dir: Path, subject: str, text: str, versions: list[dict[str, Any]]
) -> list[Problem]:
    found = []
    current = avro.schema.parse(text)
    for version in versions:
        old_text = (avro_dir / "history" / f"{subject}.v{version['version']}.avsc").read_text()
        if _sha256(old_text) != version["sha256"]:
            detail = f"history of v{version['version']} was edited; restore it from git"
            found.append(Problem(subject, "", detail))
            continue
        old = avro.schema.parse(old_text)
        label = f"v{version['version']}"
        found += _incompatible(subject, f"today's cannot read {label}", reader=current, writer=old)
        found += _incompatible(subject, f"{label} cannot read today's", reader=old, writer=current)
    return found


def _incompatible(
    subject: str, label: str, *, reader: avro.schema.Schema, writer: avro.schema.Schema
) -> list[Problem]:
    result = ReaderWriterCompatibilityChecker().get_compatibility(reader=reader, writer=writer)
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    fields = sorted({_field_at(reader, location) for location in result.locations} - {""})
    detail = f"{label}: {'; '.join(sorted(set(result.messages)))}"
    return [Problem(subject, field, detail) for field in fields or [""]]


def _field_at(schema: avro.schema.Schema, location: str) -> str:
    """Turn the checker's location ("/fields/7/type/...") into a dotted field path."""
    node: Any = json.loads(str(schema))
    names, parts = [], [part for part in location.split("/") if part]
    for part in parts:
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
            if isinstance(node, dict) and "name" in node and "type" in node:
                names.append(str(node["name"]))
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            break
    return ".".join(names)


def _lock(avro_dir: Path) -> dict[str, Any]:
    path = avro_dir / "lock.json"
    return json.loads(path.read_text()) if path.exists() else {"subjects": {}}


def _sha256(text: str) -> str:
    return fingerprint(json.loads(text))


if __name__ == "__main__":
    sys.exit(main())
