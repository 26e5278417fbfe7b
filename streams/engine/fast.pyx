# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Compiled encoder of record batches (format 2), and the checksum by the processor's instruction.

`unsent` says what they are for, and uses the client's where `CHECKSUMS` is false: the bytes are the
same.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memset

include "../../schemas/fast_runtime.pxi"

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #if defined(__x86_64__) && defined(__GNUC__)
    static int crc32c_here(void) { return __builtin_cpu_supports("sse4.2") != 0; }

    __attribute__((target("sse4.2")))
    static uint32_t crc32c_of(const char* at, size_t size) {
        uint64_t crc = 0xFFFFFFFF, word;
        for (; size >= 8; size -= 8, at += 8) {
            memcpy(&word, at, 8);
            crc = __builtin_ia32_crc32di(crc, word);
        }
        for (; size > 0; size--, at++)
            crc = __builtin_ia32_crc32qi((uint32_t)crc, (unsigned char)*at);
        return ~(uint32_t)crc;
    }
    #else
    static int crc32c_here(void) { return 0; }
    static uint32_t crc32c_of(const char* at, size_t size) { return 0; }
    #endif
    """
    bint crc32c_here()
    uint32_t crc32c_of(const char* at, size_t size)


CHECKSUMS = crc32c_here()
"""Whether the processor has the instruction; `checksum` is of no use where it has not."""


def checksum(bytearray data, Py_ssize_t begin):
    """Return the CRC-32C of what `data` has from `begin` on."""
    cdef Py_ssize_t size = PyByteArray_GET_SIZE(data)
    assert 0 <= begin <= size
    return crc32c_of(PyByteArray_AS_STRING(data) + begin, size - begin)


def pack(outs, Py_ssize_t header, Py_ssize_t bytes_max):
    """Return batches, one at least, as (room for a header and then the records, how many).

    None reaches `bytes_max`, unless it is a single record.
    """
    cdef Buffer batch, record
    cdef long long count = 0
    cdef list batches = []
    buffer_open(&record)
    try:
        buffer_open(&batch)
        try:
            put_blank(&batch, header)
            for key, value, headers in outs:
                put_record(&record, count, key, value, headers)
                if count and batch.length + size_of(record.length) + record.length >= bytes_max:
                    batches.append((taken(&batch, header), count))
                    count = 0
                    put_record(&record, count, key, value, headers)
                put_chars(&batch, record.data, record.length)
                count += 1
            batches.append((taken(&batch, header), count))
        finally:
            buffer_close(&batch)
    finally:
        buffer_close(&record)
    return batches


cdef object taken(Buffer* batch, Py_ssize_t header):
    """Take a batch out of the buffer, which has room for the next one's header then."""
    data = PyByteArray_FromStringAndSize(batch.data, batch.length)
    batch.length = header
    return data


cdef int put_blank(Buffer* out, Py_ssize_t size) except -1:
    reserve(out, size)
    memset(out.data + out.length, 0, size)
    out.length += size
    return 0


cdef int put_record(Buffer* out, long long offset, key, value, headers) except -1:
    """Put a record, without its length, in place of what the buffer has."""
    out.length = 0
    put_byte(out, 0)  # attributes: none
    put_byte(out, 0)  # as old as the batch
    put_varint(out, offset)
    put_nullable(out, key)
    put_nullable(out, value)
    put_varint(out, len(headers))
    for name, content in headers:
        put_string(out, name)
        put_nullable(out, content)
    return 0


cdef int put_nullable(Buffer* out, value) except -1:
    if value is None:
        return put_varint(out, -1)
    if type(value) is not bytes:
        value = bytes(memoryview(value))
    return put_bytes(out, value)


cdef Py_ssize_t size_of(Py_ssize_t length) noexcept:
    """Return how many bytes a length takes."""
    cdef Py_ssize_t size = 1
    length >>= 6
    while length:
        length >>= 7
        size += 1
    return size
