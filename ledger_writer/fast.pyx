# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Compiled codecs of what most commands are: a plain transfer, its row, its event.

`codec` tells which pure function each one speaks for. What is not plain, or fails, is left to that
function, so the answer is the same, bytes or error, whatever is asked.
"""

from msgspec.structs import astuple

from ledger_writer import columns, event, packing
from ledger_writer.command import POST, STEPS, read_command
from ledger_writer.model import LEGS_MAX, Command, Leg, Row
from schemas.money import AMOUNT_MINOR_MAX
from schemas.wire import decoder, schema_id

include "../schemas/fast_runtime.pxi"
include "fast_fields.pxi"
include "fast_stamp.pxi"

cdef tuple NOT_PLAIN = (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError)


# -- commands: `codec.pure_read` --------------------------------------------------------------

cdef object decode = decoder(event.COMMANDS)
cdef bytes COMMAND_FRAME = b"\0" + schema_id(event.COMMANDS).to_bytes(4, "big")
cdef bytes TYPE = POST.encode()
cdef bytes STEP = STEPS[POST].encode()
cdef bytes NOTHING_MORE = bytes(20)  # the fields after effective_at_us: null, false or empty
cdef long long AMOUNT_MAX = AMOUNT_MINOR_MAX
cdef int LEGS = LEGS_MAX
cdef str tenant_before = ""
cdef str currency_before = ""


def read(bytes value, offset, timestamp_ms):
    try:
        command = plain_command(value, offset, timestamp_ms)
    except NOT_PLAIN:
        command = None
    return read_command(decode(value), offset, timestamp_ms) if command is None else command


cdef object plain_command(bytes value, object offset, object timestamp_ms):
    """Return the command, None where it is not plain."""
    global tenant_before
    cdef Cursor at
    cdef Text text, saga, tenant, identity, digest, home, transfer
    cdef long long attempt, slot
    if value is None or PyBytes_GET_SIZE(value) < 5:
        return None
    if memcmp(PyBytes_AS_STRING(value), <char*> COMMAND_FRAME, 5) != 0:
        return None
    cursor_open(&at, value, 5)
    get_text(&at, &text)
    if not same(&text, TYPE, PyBytes_GET_SIZE(TYPE)):
        return None
    get_text(&at, &text)  # command_id
    get_text(&at, &saga)
    if not ascii(&text) or not sound(&saga):
        return None
    get_text(&at, &text)
    attempt = get_varint(&at)
    if not same(&text, STEP, PyBytes_GET_SIZE(STEP)) or not 1 <= attempt <= 0x7FFFFFFF:
        return None
    get_text(&at, &tenant)
    get_text(&at, &identity)
    get_text(&at, &digest)
    body_hash = unhex(&digest)
    if not sound(&tenant) or not sound(&identity) or body_hash is None:
        return None
    slot = get_varint(&at)
    get_text(&at, &home)
    if slot != account_slot(&home):
        return None
    get_varint(&at)  # requested_at_us
    saga_id = string(&saga)
    transfer_id = None
    if get_branch(&at):
        get_text(&at, &transfer)
        if not sound(&transfer):
            return None
        transfer_id = saga_id
        if not same(&transfer, saga.data, saga.size):
            transfer_id = string(&transfer)
    home_account = string(&home)
    legs = plain_legs(&at, &home, home_account)
    effective_at_us = get_varint(&at) if legs is not None and get_branch(&at) else None
    if legs is None or at.end - at.at != 20 or memcmp(at.at, <char*> NOTHING_MORE, 20):
        return None
    tenant_before = again(&tenant, tenant_before)
    return Command(
        POST, offset, timestamp_ms * 1000, saga_id, STEPS[POST], attempt, tenant_before,
        string(&identity), body_hash, slot, home_account, transfer_id, legs, effective_at_us,
        None, None, None, {},
    )


cdef tuple plain_legs(Cursor* at, Text* home, object home_account):
    """Return a command's legs, None where they are not plain."""
    global currency_before
    cdef Text source, destination, currency
    cdef long long amount_minor, count = get_varint(at)
    cdef list legs = []
    if not 1 <= count <= LEGS:
        return None
    for _ in range(count):
        get_text(at, &source)
        get_text(at, &destination)
        amount_minor = get_varint(at)
        get_text(at, &currency)
        if not 1 <= amount_minor <= AMOUNT_MAX or not sound(&source) or not sound(&destination):
            return None
        currency_before = again(&currency, currency_before)
        legs.append(Leg(
            home_account if same(&source, home.data, home.size) else string(&source),
            home_account if same(&destination, home.data, home.size) else string(&destination),
            amount_minor,
            currency_before,
        ))
    return tuple(legs) if get_varint(at) == 0 else None


cdef str again(Text* text, str before):
    """Return the text, as the same object as the one before if it is equal to that."""
    cdef Py_ssize_t size = 0
    cdef const char* data = PyUnicode_AsUTF8AndSize(before, &size)
    return before if same(text, data, size) else string(text)


# -- what Postgres takes: `codec.pure_packed_rows`, `packing.packed_numbers` ---------------------

cdef int INT2 = packing.INT2, INT4 = packing.INT4, INT8 = packing.INT8, TEXT = packing.TEXT
cdef int JSON = packing.JSON, BYTEA = packing.BYTEA, INT8_ARRAY = packing.INT8_ARRAY
cdef int COLUMNS = len(packing.ROW_TYPES)
cdef int IDENTITY = columns.IDENTITY_LENGTH


def packed_rows(row_type, rows):
    cdef Buffer out
    cdef Py_ssize_t begin
    cdef Py_ssize_t end
    buffer_open(&out)
    try:
        put_array_head(&out, row_type, len(rows))
        for row in rows:
            begin = out.length
            put_be(&out, 0, 4)
            put_row(&out, row)
            end, out.length = out.length, begin
            put_be(&out, end - begin - 4, 4)
            out.length = end
        return PyBytes_FromStringAndSize(out.data, out.length)
    except NOT_PLAIN:
        return packing.packed_rows(row_type, [columns.stored(row) for row in rows])
    finally:
        buffer_close(&out)


cdef int put_row(Buffer* out, object row) except -1:
    (_, position, offset, booked, effective, kind, tenant, saga_id, step, attempt, identity,
     body_hash, home_account, transfer_id, reason, leg, repeats, extra, entries, chain_hash
     ) = <tuple> astuple(row)
    put_be(out, COLUMNS, 4)
    put_number_field(out, INT8, 8, position)
    put_number_field(out, INT8, 8, offset)
    put_number_field(out, INT8, 8, booked)
    put_number_field(out, INT8, 8, effective)
    put_number_field(out, INT8, 8, None if repeats is None else repeats.position)
    put_number_field(out, INT4, 4, attempt)
    put_number_field(out, INT2, 2, leg)
    put_number_field(out, INT2, 2, None if repeats is None else repeats.partition)
    put_text_field(out, TEXT, kind)
    put_text_field(out, TEXT, tenant)
    put_text_field(out, TEXT, saga_id)
    put_text_field(out, TEXT, step)
    put_text_field(out, TEXT, None if (<str> saga_id)[-IDENTITY:] == identity else identity)
    put_text_field(out, TEXT, None if home_follows(home_account, entries) else home_account)
    put_text_field(out, TEXT, "" if transfer_id == saga_id else transfer_id)
    put_text_field(out, TEXT, reason)
    put_text_field(out, JSON, extra)
    put_entries_field(out, entries)
    put_bytes_field(out, BYTEA, body_hash)
    return put_bytes_field(out, BYTEA, chain_hash)


cdef bint home_follows(str home_account, tuple entries) except -1:
    if not entries:
        return False
    source = entries[0].account_id
    if len(entries) == 1 or guarded(source) or not guarded(entries[1].account_id):
        return home_account == source
    return home_account == entries[1].account_id


cdef bint guarded(str account_id) except -1:
    if len(account_id) < 6:
        raise IndexError(account_id)
    return account_id[5] == "c"


cdef int put_entries_field(Buffer* out, tuple entries) except -1:
    cdef Py_ssize_t count = columns.STRIDE * len(entries)
    if not count:
        return put_null_field(out, INT8_ARRAY)
    put_be(out, INT8_ARRAY, 4)
    put_be(out, 20 + 12 * count, 4)
    put_array_head(out, INT8, count)
    for entry in entries:
        account_no, _, _, version, amount, posted, held = <tuple> astuple(entry)
        put_array_number(out, account_no)
        put_array_number(out, version)
        put_array_number(out, amount)
        put_array_number(out, posted)
        put_array_number(out, held)
    return 0


def packed_numbers(numbers):
    cdef Buffer out
    buffer_open(&out)
    try:
        put_array_head(&out, INT8, len(numbers))
        for number in numbers:
            put_array_number(&out, number)
        return PyBytes_FromStringAndSize(out.data, out.length)
    except NOT_PLAIN:
        return packing.packed_numbers(numbers)
    finally:
        buffer_close(&out)


# -- events: `event.event_bytes` ----------------------------------------------------------------

cdef bytes BLANK = event.event_bytes(
    Row(0, 0, 0, 0, 0, "", "", "", "", 0, "", b"", "acct_c000_" + 26 * "a", None, None, None, None,
        None, (), 32 * b"\xee")
)
cdef bytes EVENT_FRAME = BLANK[:5]
cdef bytes EVENT_TAIL = BLANK[BLANK.rindex(64 * b"e") + 64 :]  # what follows chain_hash in most


def event_bytes(row):
    cdef Buffer out
    told = row.repeats or row
    if told.extra:
        return event.event_bytes(row)
    buffer_open(&out)
    try:
        put_event(&out, row, told)
        return PyBytes_FromStringAndSize(out.data, out.length)
    except NOT_PLAIN:
        return event.event_bytes(row)
    finally:
        buffer_close(&out)


cdef int put_event(Buffer* out, object row, object told) except -1:
    cdef str home_account = row.home_account
    cdef int slot = account_slot_of(home_account)
    cdef str reason = told.reason
    cdef tuple entries = told.entries
    if slot < 0:
        raise ValueError("not plain")
    put_raw(out, EVENT_FRAME)
    put_string(out, told.type)
    put_string(out, f"{event.COMMANDS}-{row.partition}-{row.command_offset}-0")
    put_string(out, f"{row.saga_id}/{row.step}/{row.attempt}")
    put_string(out, row.saga_id)
    put_string(out, row.tenant)
    put_string(out, row.identity)
    put_hex_string(out, row.body_hash)
    put_varint(out, slot)
    put_string(out, home_account)
    put_int(out, row.partition)
    put_long(out, row.position)
    put_long(out, row.command_offset)
    put_long(out, row.booked_at_us)
    put_long(out, told.effective_at_us)
    put_string_or_null(out, told.transfer_id)
    put_string_or_null(out, reason)
    put_string_or_null(out, None if reason is None else event.DETAILS.get(reason))
    if told.failed_leg is None:
        put_byte(out, 0)
    else:
        put_byte(out, 2)
        put_int(out, told.failed_leg)
    put_boolean(out, row.repeats is not None)
    if entries:
        put_varint(out, len(entries))
        for entry in entries:
            _, account_id, currency, version, amount, posted, held = <tuple> astuple(entry)
            put_string(out, account_id)
            put_int(out, told.partition)
            put_long(out, version)
            put_long(out, amount)
            put_string(out, currency)
            put_long(out, posted)
            put_long(out, held)
    put_byte(out, 0)
    put_hex_string(out, row.chain_hash)
    return put_raw(out, EVENT_TAIL)


cdef inline int put_hex_string(Buffer* out, bytes value) except -1:
    put_varint(out, 2 * PyBytes_GET_SIZE(value))
    return put_hex(out, value)


cdef inline int put_string_or_null(Buffer* out, object value) except -1:
    if value is None:
        return put_byte(out, 0)
    put_byte(out, 2)
    return put_string(out, value)
