# What the generated codecs are made of: a growing buffer, a bounded cursor, Avro's primitives.
# Every read is bounded by the cursor's end; nothing trusts a length from the wire.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy


cdef struct Buffer:
    char* data
    Py_ssize_t length
    Py_ssize_t capacity


cdef struct Cursor:
    const unsigned char* at
    const unsigned char* end


cdef int buffer_open(Buffer* out) except -1:
    out.data = <char*> malloc(1024)
    if out.data == NULL:
        raise MemoryError
    out.length = 0
    out.capacity = 1024
    return 0


cdef void buffer_close(Buffer* out) noexcept:
    free(out.data)


cdef inline int reserve(Buffer* out, Py_ssize_t more) except -1:
    cdef Py_ssize_t wanted = out.length + more
    cdef char* grown
    if wanted > out.capacity:
        grown = <char*> realloc(out.data, 2 * wanted)
        if grown == NULL:
            raise MemoryError
        out.data = grown
        out.capacity = 2 * wanted
    return 0


cdef inline int put_byte(Buffer* out, unsigned char value) except -1:
    reserve(out, 1)
    out.data[out.length] = <char> value
    out.length += 1
    return 0


cdef inline int put_varint(Buffer* out, long long value) except -1:
    cdef unsigned long long rest = (<unsigned long long> value << 1) ^ <unsigned long long> (value >> 63)
    reserve(out, 10)
    while rest > 0x7F:
        out.data[out.length] = <char> ((rest & 0x7F) | 0x80)
        out.length += 1
        rest >>= 7
    out.data[out.length] = <char> rest
    out.length += 1
    return 0


cdef inline int put_long(Buffer* out, object value) except -1:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    return put_varint(out, <long long> value)


cdef inline int put_int(Buffer* out, object value) except -1:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    cdef long long number = value
    if number > 2147483647 or number < -2147483648:
        raise OverflowError(f"{value!r} is no 32-bit integer")
    return put_varint(out, number)


cdef inline int put_boolean(Buffer* out, object value) except -1:
    if value is True:
        return put_byte(out, 1)
    if value is False:
        return put_byte(out, 0)
    raise TypeError(f"{value!r} is not a boolean")


cdef inline int put_chars(Buffer* out, const char* data, Py_ssize_t size) except -1:
    put_varint(out, size)
    reserve(out, size)
    memcpy(out.data + out.length, data, size)
    out.length += size
    return 0


cdef inline int put_string(Buffer* out, object value) except -1:
    cdef Py_ssize_t size = 0
    cdef const char* data
    if type(value) is not str:
        raise TypeError(f"{value!r} is not a string")
    data = PyUnicode_AsUTF8AndSize(value, &size)
    return put_chars(out, data, size)


cdef inline int put_bytes(Buffer* out, object value) except -1:
    if type(value) is not bytes:
        raise TypeError(f"{value!r} is not bytes")
    return put_chars(out, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef inline int put_raw(Buffer* out, bytes value) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    reserve(out, size)
    memcpy(out.data + out.length, PyBytes_AS_STRING(value), size)
    out.length += size
    return 0


cdef int cursor_open(Cursor* cursor, bytes data, Py_ssize_t offset) except -1:
    if offset < 0 or offset > PyBytes_GET_SIZE(data):
        raise EOFError("the record is shorter than its frame")
    cursor.at = <const unsigned char*> PyBytes_AS_STRING(data) + offset
    cursor.end = <const unsigned char*> PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data)
    return 0


cdef int cursor_end(Cursor* cursor) except -1:
    if cursor.at != cursor.end:
        raise ValueError(f"{cursor.end - cursor.at} bytes follow the record")
    return 0


cdef inline long long get_varint(Cursor* cursor) except? -4242424242:
    cdef unsigned long long value = 0
    cdef int shift = 0
    cdef unsigned char byte
    while True:
        if cursor.at >= cursor.end:
            raise EOFError("the record ends within a number")
        byte = cursor.at[0]
        cursor.at += 1
        if shift == 63 and byte > 1:
            raise ValueError("a number of more than 64 bits")
        value |= (<unsigned long long> (byte & 0x7F)) << shift
        if byte < 0x80:
            return <long long> (value >> 1) ^ -(<long long> (value & 1))
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


cdef inline object get_long(Cursor* cursor):
    return get_varint(cursor)


cdef inline object get_int(Cursor* cursor):
    cdef long long value = get_varint(cursor)
    if value > 2147483647 or value < -2147483648:
        raise ValueError(f"{value} is no 32-bit integer")
    return value


cdef inline object get_boolean(Cursor* cursor):
    cdef unsigned char byte
    if cursor.at >= cursor.end:
        raise EOFError("the record ends before a boolean")
    byte = cursor.at[0]
    cursor.at += 1
    if byte > 1:
        raise ValueError(f"{byte} is no boolean")
    return byte == 1


cdef inline Py_ssize_t get_size(Cursor* cursor) except -1:
    cdef long long size = get_varint(cursor)
    if size < 0 or size > cursor.end - cursor.at:
        raise EOFError(f"a length of {size} reaches beyond the record")
    return <Py_ssize_t> size


cdef inline object get_string(Cursor* cursor):
    cdef Py_ssize_t size = get_size(cursor)
    text = PyUnicode_DecodeUTF8(<const char*> cursor.at, size, NULL)
    cursor.at += size
    return text


cdef inline object get_bytes(Cursor* cursor):
    cdef Py_ssize_t size = get_size(cursor)
    data = PyBytes_FromStringAndSize(<const char*> cursor.at, size)
    cursor.at += size
    return data


cdef inline long long get_branch(Cursor* cursor) except -1:
    cdef long long branch = get_varint(cursor)
    if branch != 0 and branch != 1:
        raise ValueError(f"{branch} is no branch of the union")
    return branch


cdef inline long long get_block(Cursor* cursor) except -1:
    cdef long long count = get_varint(cursor)
    if count < 0:
        count = -count
        get_varint(cursor)
    if count < 0 or count > cursor.end - cursor.at:
        raise EOFError(f"a block of {count} items reaches beyond the record")
    return count
