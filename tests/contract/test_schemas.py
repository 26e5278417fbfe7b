"""The record schemas can only grow, and every reader of any version reads every other."""

import contextlib
import io
import json
import shutil
from types import SimpleNamespace

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import codegen, evolution, wire
from schemas.errors import Poisoned
from schemas.topics import TOPICS

FEW = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
DECODED = sorted(name for name, topic in TOPICS.items() if topic.subject)


def test_every_schema_is_locked_and_compatible_with_every_version_before_it():
    assert [str(problem) for problem in evolution.problems()] == []


def _edited(tmp_path, topic, edit):
    shutil.copytree(wire.AVRO_DIR, tmp_path / "avro")
    path = tmp_path / "avro" / f"{topic}.avsc"
    schema = json.loads(path.read_text())
    edit({field["name"]: field for field in schema["fields"]}, schema["fields"])
    path.write_text(json.dumps(schema))
    return evolution.problems(tmp_path / "avro")


@pytest.mark.parametrize("topic", DECODED)
def test_changing_a_fields_type_is_refused_by_the_fields_name(tmp_path, topic):
    def edit(fields, _):
        fields["slot" if "slot" in fields else "version"]["type"] = "string"

    problems = _edited(tmp_path, topic, edit)
    assert {problem.field for problem in problems} & {"slot", "version"}
    assert all(problem.subject == f"{topic}-value" for problem in problems)


def test_a_changed_field_inside_an_entry_is_named_with_its_path(tmp_path):
    def edit(fields, _):
        fields["entries"]["type"]["items"]["fields"][3]["type"] = "string"

    assert _edited(tmp_path, "ledger.events", edit)[0].field == "entries.amount_minor"


def test_removing_a_field_without_default_is_refused(tmp_path):
    problems = _edited(tmp_path, "payments.events", lambda _, fields: fields.pop(0))
    assert problems
    assert "cannot read today's" in str(problems[0])


def test_adding_a_field_without_default_is_refused_by_its_name(tmp_path):
    new = {"name": "scheme", "type": "string"}
    problems = _edited(tmp_path, "payments.events", lambda _, fields: fields.append(new))
    assert {problem.field for problem in problems} == {"scheme"}


def test_adding_a_field_with_default_asks_only_for_the_lock(tmp_path):
    new = {"name": "scheme", "type": ["null", "string"], "default": None}
    problems = _edited(tmp_path, "payments.events", lambda _, fields: fields.append(new))
    assert ["run `python -m schemas.evolution`" in str(problem) for problem in problems] == [True]
    number = len(wire.lock()["payments.events-value"]) + 1
    free = 1 + max(version["id"] for versions in wire.lock().values() for version in versions)
    locked = [f"payments.events-value v{number} as id {free}"]
    assert evolution.lock(tmp_path / "avro") == locked
    assert evolution.problems(tmp_path / "avro") == []


def test_rewriting_history_is_found(tmp_path):
    shutil.copytree(wire.AVRO_DIR, tmp_path / "avro")
    old = tmp_path / "avro" / "history" / "payments.events-value.v1.avsc"
    old.write_text(old.read_text().replace('"int"', '"long"'))
    assert any("was edited" in str(p) for p in evolution.problems(tmp_path / "avro"))


def test_every_id_belongs_to_one_schema():
    taken = [version["id"] for versions in wire.lock().values() for version in versions]
    assert len(taken) == len(set(taken))
    assert set(wire.lock()) == {f"{topic}-value" for topic in DECODED}


def _values(schema):
    """Draw any value of an Avro type, as fastavro reads it back."""
    match schema:
        case list():
            return st.one_of([_values(branch) for branch in schema])
        case {"type": "record", "fields": fields}:
            return st.fixed_dictionaries({f["name"]: _values(f["type"]) for f in fields})
        case {"type": "array", "items": items}:
            return st.lists(_values(items), max_size=3)
        case {"type": "map", "values": values}:
            return st.dictionaries(st.text(max_size=5), _values(values), max_size=3)
    return {
        "null": st.none(),
        "string": st.text(max_size=20),
        "bytes": st.binary(max_size=20),
        "boolean": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
    }[schema]


CODECS = [False, True] if wire.compiled_topics() else [False]


@pytest.mark.parametrize("compiled", CODECS)
@pytest.mark.parametrize("topic", DECODED)
@FEW
@given(data=st.data())
def test_what_is_encoded_is_what_is_decoded(topic, compiled, data):
    schema = json.loads((wire.AVRO_DIR / f"{topic}.avsc").read_text())
    record = data.draw(_values(schema))
    framed = wire.encoder(topic, compiled=compiled)(record)
    assert framed[:1] == b"\0"
    assert wire.schema_id_of(framed) == wire.schema_id(topic)
    assert framed == wire.encoder(topic, compiled=False)(record)
    assert wire.decoder(topic, compiled=compiled)(framed) == record


@pytest.mark.parametrize("compiled", CODECS)
@pytest.mark.parametrize("topic", DECODED)
@FEW
@given(data=st.data())
def test_a_row_is_encoded_as_the_record_that_it_stands_for(topic, compiled, data):
    schema = json.loads((wire.AVRO_DIR / f"{topic}.avsc").read_text())
    record, told = data.draw(_values(schema)), data.draw(_values(schema))
    fields = tuple(data.draw(st.permutations(sorted(record))))
    cut = data.draw(st.integers(0, len(fields)))
    others = {name: told[name] for name in fields[max(cut - 1, 0) :]}  # one of them told twice
    encode = wire.row_encoder(topic, fields[:cut], compiled=compiled)
    row = tuple(record[name] for name in fields[:cut])
    assert encode(row, others) == wire.encode(topic, record | others)


@pytest.mark.parametrize("compiled", CODECS)
def test_a_row_that_does_not_fit_its_fields_is_our_own_error(compiled):
    reply = _reply()
    encode = wire.row_encoder("gateway.replies", tuple(reply), compiled=compiled)
    row = tuple(reply.values())
    assert encode(row, {}) == wire.encode("gateway.replies", reply)
    for bad in (row[:-1], (*row, None), row[::-1]):
        with pytest.raises((ValueError, TypeError)):
            encode(bad, {})
    with pytest.raises(KeyError):
        encode(row, {"no_field": 1})
    with pytest.raises((KeyError, ValueError, TypeError)):
        wire.row_encoder("gateway.replies", ("status",), compiled=compiled)(("settled",), {})


@pytest.mark.parametrize("compiled", CODECS)
@pytest.mark.parametrize("topic", DECODED)
@FEW
@given(junk=st.binary(max_size=60), framed=st.booleans())
def test_bytes_that_are_no_record_are_poisoned_and_nothing_worse(topic, compiled, junk, framed):
    data = (b"\0" + wire.schema_id(topic).to_bytes(4, "big") if framed else b"") + junk
    try:
        record = wire.decoder(topic, compiled=compiled)(data)
    except Poisoned:
        return
    assert wire.encode(topic, record)[:5] == data[:5]


@pytest.mark.parametrize("compiled", CODECS)
@pytest.mark.parametrize("topic", DECODED)
@FEW
@given(data=st.data())
def test_a_damaged_record_is_poisoned_or_another_record(topic, compiled, data):
    schema = json.loads((wire.AVRO_DIR / f"{topic}.avsc").read_text())
    framed = bytearray(wire.encode(topic, data.draw(_values(schema))))
    for _ in range(data.draw(st.integers(1, 4))):
        framed[data.draw(st.integers(5, len(framed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Poisoned):
        wire.decoder(topic, compiled=compiled)(bytes(framed))


@pytest.mark.skipif(not wire.compiled_topics(), reason="built without a C compiler")
def test_every_topic_has_a_compiled_codec_where_there_is_a_compiler():
    assert wire.compiled_topics() == frozenset(DECODED)


def test_a_codec_compiled_from_another_schema_is_not_used(monkeypatch):
    stale = SimpleNamespace(fingerprint="another schema's")
    monkeypatch.setattr(wire, "_fast", SimpleNamespace(CODECS=dict.fromkeys(DECODED, stale)))
    wire.compiled_topics.cache_clear()
    try:
        assert wire.compiled_topics() == frozenset()
    finally:
        wire.compiled_topics.cache_clear()


def test_the_generated_codecs_are_those_of_todays_schemas():
    source = codegen.generate(codegen.current_schemas(wire.AVRO_DIR))
    assert codegen.TARGET.read_text() == source, "run `python -m schemas.codegen`"


@pytest.mark.parametrize("compiled", CODECS)
def test_a_record_that_does_not_fit_its_schema_is_our_own_error(compiled):
    encode = wire.encoder("gateway.replies", compiled=compiled)
    for fault in ({"version": "1"}, {"status": 1}, {"occurred_at_us": None}):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            encode(_reply() | fault)


@pytest.mark.parametrize("compiled", CODECS)
@pytest.mark.parametrize("topic", DECODED)
@FEW
@given(data=st.data())
def test_fields_with_a_default_may_be_left_out(topic, compiled, data):
    schema = json.loads((wire.AVRO_DIR / f"{topic}.avsc").read_text())
    record = data.draw(_values(schema))
    defaults = {f["name"]: f["default"] for f in schema["fields"] if "default" in f}
    short = {name: value for name, value in record.items() if name not in defaults}
    framed = wire.encoder(topic, compiled=compiled)(short)
    assert wire.decode(topic, framed) == record | defaults


@pytest.mark.parametrize("cut", [0, 3, 5, 40, -1])
def test_a_truncated_record_is_poisoned(cut):
    framed = wire.encode("gateway.replies", _reply())
    with pytest.raises(Poisoned):
        wire.decode("gateway.replies", framed[:cut])


def test_bytes_behind_the_record_are_poisoned():
    with pytest.raises(Poisoned, match="1 bytes follow"):
        wire.decode("gateway.replies", wire.encode("gateway.replies", _reply()) + b"x")


def test_a_record_without_a_value_is_poisoned():
    with pytest.raises(Poisoned, match="without a value"):
        wire.decoder("ledger.events")(None)


def test_another_topics_record_is_poisoned():
    with pytest.raises(Poisoned, match="not one of ledger.events's"):
        wire.decode("ledger.events", wire.encode("gateway.replies", _reply()))


def _reply():
    return {
        "request_id": "r", "resource_id": "pay_000_" + "a" * 26, "identity": "a" * 26,
        "status": "settled", "version": 2, "occurred_at_us": 1,
    }  # fmt: skip


def test_any_kafka_tool_reads_the_body_with_the_locked_schema():
    framed = wire.encode("gateway.replies", _reply())
    schema = fastavro.parse_schema(json.loads(wire.writer_schema(wire.schema_id_of(framed))))
    record = fastavro.schemaless_reader(io.BytesIO(framed[5:]), schema, None)
    assert record["status"] == "settled"


def test_every_field_says_what_it_is():
    for topic in DECODED:
        schema = json.loads((wire.AVRO_DIR / f"{topic}.avsc").read_text())
        assert schema["doc"]
        assert [field["name"] for field in schema["fields"] if not field.get("doc")] == []


def test_no_schema_uses_a_type_that_the_lakes_fast_decoder_refuses():
    for topic in DECODED:
        text = (wire.AVRO_DIR / f"{topic}.avsc").read_text()
        assert '"fixed"' not in text
        assert "logicalType" not in text
        assert '"float"' not in text
        assert '"double"' not in text
        assert ('"bytes"' in text) == topic.startswith("webhooks.") or topic == "webhooks.events"
