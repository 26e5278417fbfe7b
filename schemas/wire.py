"""Avro on the wire: Confluent framing (zero byte, 4-byte big-endian schema id, body).

Schema ids come from `avro/lock.json`, which fixes them for the embedded default; every version that
was ever locked stays in `avro/history/`, and a reader decodes with the writer's version, resolved
to today's. Encoding a record that does not fit its schema is our own fault (it raises what fastavro
raises); bytes that do not decode are Poisoned.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import fastavro
from fastavro.types import Schema as FastavroSchema

from schemas.errors import Poisoned

Record = dict[str, Any]

AVRO_DIR: Final = Path(__file__).parent / "avro"
FRAME_BYTES: Final = 5
_FRAME: Final = struct.Struct(">BI")
_DECODE_ERRORS: Final = (
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    StopIteration,
    OverflowError,
    struct.error,
    fastavro.read.SchemaResolutionError,
)


@cache
def lock() -> dict[str, list[dict[str, Any]]]:
    """Return the id lock: subject -> its versions, oldest first, each `{id, version, sha256}`."""
    subjects = json.loads((AVRO_DIR / "lock.json").read_text())["subjects"]
    assert isinstance(subjects, dict)
    return subjects


@cache
def writer_schema(schema_id: int) -> str:
    """Return the JSON text of the schema with this id; Poisoned when the lock has none."""
    for subject, versions in lock().items():
        for version in versions:
            if version["id"] == schema_id:
                return history_file(subject, version["version"]).read_text()
    raise Poisoned(f"schema id {schema_id} is not in {AVRO_DIR / 'lock.json'}")


def history_file(subject: str, version: int) -> Path:
    """Name the file that keeps a locked version for ever."""
    return AVRO_DIR / "history" / f"{subject}.v{version}.avsc"


@cache
def schema_id(topic: str) -> int:
    """Return the id that records of `topic` are written with today."""
    newest: int = lock()[f"{topic}-value"][-1]["id"]
    return newest


def schema_id_of(data: bytes) -> int:
    """Read the frame; Poisoned when there is none."""
    if len(data) < FRAME_BYTES or data[0] != 0:
        raise Poisoned(
            "no Confluent frame: a record starts with a zero byte and a 4-byte schema id"
        )
    return int.from_bytes(data[1:FRAME_BYTES], "big")


@cache
def encoder(topic: str) -> Callable[[Record], bytes]:
    """Return the function that frames and encodes records of `topic`."""
    frame = _FRAME.pack(0, schema_id(topic))
    parsed = _parsed(schema_id(topic))
    write = fastavro.schemaless_writer

    def encode_record(record: Record) -> bytes:
        out = io.BytesIO()
        out.write(frame)
        write(out, parsed, record)
        return out.getvalue()

    return encode_record


@cache
def decoder(topic: str) -> Callable[[bytes], Record]:
    """Return the function that decodes framed records of `topic`; it raises Poisoned."""
    today = schema_id(topic)
    parsed = _parsed(today)
    subject_ids = {version["id"] for version in lock()[f"{topic}-value"]}
    read = fastavro.schemaless_reader

    def decode_record(data: bytes) -> Record:
        written = schema_id_of(data)
        body = io.BytesIO(data)
        body.seek(FRAME_BYTES)
        try:
            if written == today:
                record = read(body, parsed, None)
            elif written in subject_ids:
                record = read(body, _parsed(written), parsed)
            else:
                raise Poisoned(f"schema id {written} is not one of {topic}'s")
        except _DECODE_ERRORS as error:
            raise Poisoned(
                f"{topic}: the bytes do not decode with schema {written}: {error}"
            ) from error
        if body.tell() != len(data):
            raise Poisoned(f"{topic}: {len(data) - body.tell()} bytes follow the record")
        assert isinstance(record, dict)
        return record

    return decode_record


def encode(topic: str, record: Record) -> bytes:
    """Frame and encode one record of `topic`."""
    return encoder(topic)(record)


def decode(topic: str, data: bytes) -> Record:
    """Decode one framed record of `topic`; Poisoned when its bytes are not one."""
    return decoder(topic)(data)


@cache
def _parsed(schema_id: int) -> FastavroSchema:
    # Named types are re-declared by every version of a schema: each is parsed on its own.
    return fastavro.parse_schema(json.loads(writer_schema(schema_id)), named_schemas={})
