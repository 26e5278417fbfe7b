# Forms that the compiled codecs write beside Avro: hex, and Postgres's binary fields.

from libc.string cimport memchr, memcmp


cdef struct Text:
    const char* data
    Py_ssize_t size


cdef inline int get_text(Cursor* cursor, Text* text) except -1:
    text.size = get_size(cursor)
    text.data = <const char*> cursor.at
    cursor.at += text.size
    return 0


cdef inline bint same(Text* text, const char* data, Py_ssize_t size):
    return text.size == size and memcmp(text.data, data, size) == 0


cdef inline bint sound(Text* text):
    """Tell whether Postgres can hold it and there is something to hold."""
    return text.size > 0 and memchr(text.data, 0, text.size) == NULL


cdef inline bint ascii(Text* text):
    cdef Py_ssize_t i
    for i in range(text.size):
        if <unsigned char> text.data[i] > 0x7F:
            return False
    return True


cdef inline object string(Text* text):
    return PyUnicode_DecodeUTF8(text.data, text.size, NULL)


cdef inline int nibble(char digit):
    if c"0" <= digit <= c"9":
        return digit - c"0"
    if c"a" <= digit <= c"f":
        return digit - c"a" + 10
    return -1


cdef inline int account_slot(Text* text):
    """Return the slot in an account's id, -1 for anything else."""
    cdef Py_ssize_t i
    cdef int high, middle, low
    if text.size != 36 or memcmp(text.data, b"acct_", 5) != 0 or text.data[9] != c"_":
        return -1
    if text.data[5] != c"c" and text.data[5] != c"e":
        return -1
    high, middle, low = nibble(text.data[6]), nibble(text.data[7]), nibble(text.data[8])
    if not 0 <= high <= 3 or middle < 0 or low < 0:
        return -1
    for i in range(10, 36):
        if not (c"a" <= text.data[i] <= c"z" or c"2" <= text.data[i] <= c"7"):
            return -1
    return high << 8 | middle << 4 | low


cdef inline int account_slot_of(str account_id) except -2:
    cdef Text text
    text.data = PyUnicode_AsUTF8AndSize(account_id, &text.size)
    return account_slot(&text)


cdef inline bytes unhex(Text* text):
    """Return 32 bytes from 64 lower-case digits, None from anything else."""
    cdef unsigned char digest[32]
    cdef int high, low, i
    if text.size != 64:
        return None
    for i in range(32):
        high, low = nibble(text.data[2 * i]), nibble(text.data[2 * i + 1])
        if high < 0 or low < 0:
            return None
        digest[i] = <unsigned char> (high << 4 | low)
    return PyBytes_FromStringAndSize(<const char*> digest, 32)


cdef inline int put_raw_chars(Buffer* out, const char* data, Py_ssize_t size) except -1:
    reserve(out, size)
    memcpy(out.data + out.length, data, size)
    out.length += size
    return 0


cdef inline int put_hex(Buffer* out, bytes value) except -1:
    cdef const unsigned char* data = <const unsigned char*> PyBytes_AS_STRING(value)
    cdef Py_ssize_t i, size = PyBytes_GET_SIZE(value)
    cdef const char* digits = b"0123456789abcdef"
    reserve(out, 2 * size)
    for i in range(size):
        out.data[out.length] = digits[data[i] >> 4]
        out.data[out.length + 1] = digits[data[i] & 15]
        out.length += 2
    return 0


cdef inline int put_be(Buffer* out, unsigned long long value, int size) except -1:
    """Write the lowest `size` bytes, the highest of them first."""
    cdef int i
    reserve(out, size)
    for i in range(size):
        out.data[out.length + i] = <char> (value >> 8 * (size - 1 - i) & 0xFF)
    out.length += size
    return 0


cdef inline int put_null_field(Buffer* out, int kind) except -1:
    put_be(out, kind, 4)
    return put_be(out, <unsigned long long> -1, 4)


cdef inline int put_number_field(Buffer* out, int kind, int size, object value) except -1:
    cdef long long number
    if value is None:
        return put_null_field(out, kind)
    number = value
    if size < 8 and not -(1LL << 8 * size - 1) <= number < 1LL << 8 * size - 1:
        raise OverflowError(f"{value} does not fit")
    put_be(out, kind, 4)
    put_be(out, size, 4)
    return put_be(out, <unsigned long long> number, size)


cdef inline int put_text_field(Buffer* out, int kind, object value) except -1:
    cdef Py_ssize_t size = 0
    cdef const char* data
    if value is None:
        return put_null_field(out, kind)
    data = PyUnicode_AsUTF8AndSize(value, &size)
    put_be(out, kind, 4)
    put_be(out, size, 4)
    return put_raw_chars(out, data, size)


cdef inline int put_bytes_field(Buffer* out, int kind, bytes value) except -1:
    put_be(out, kind, 4)
    put_be(out, PyBytes_GET_SIZE(value), 4)
    return put_raw(out, value)


cdef inline int put_array_head(Buffer* out, int kind, Py_ssize_t count) except -1:
    put_be(out, 1 if count else 0, 4)
    put_be(out, 0, 4)
    put_be(out, kind, 4)
    if count:
        put_be(out, count, 4)
        put_be(out, 1, 4)
    return 0


cdef inline int put_array_number(Buffer* out, object value) except -1:
    put_be(out, 8, 4)
    return put_be(out, <unsigned long long> (<long long> value), 8)
