# What the generated codecs are entered by: encoders of a dict and of a row, a decoder. Values on
# their way to be written lie in the order of the schema's fields, borrowed from who gave them.

from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject
from libc.string cimport memcmp


cdef enum:
    FIELDS_MAX = 64

ctypedef int (*Write)(Buffer* out, PyObject** values) except -1
ctypedef dict (*Read)(Cursor* cursor)


cdef class Shape:
    """A record's fields, in order, their defaults (NULL where there is none), and what writes them."""

    cdef tuple names
    cdef dict places
    cdef dict given
    cdef PyObject* defaults[FIELDS_MAX]
    cdef Py_ssize_t count
    cdef Write write


cdef Shape shaped(tuple names, dict given, Write write):
    cdef Shape shape = Shape.__new__(Shape)
    shape.names = names
    shape.places = {name: place for place, name in enumerate(names)}
    shape.given = given
    shape.count = len(names)
    shape.write = write
    assert shape.count <= FIELDS_MAX
    for place in range(shape.count):
        shape.defaults[place] = PyDict_GetItemWithError(given, names[place])
    return shape


cdef int write_dict(Buffer* out, Shape shape, dict record) except -1:
    """Write a record that is given as a dict."""
    cdef PyObject* values[FIELDS_MAX]
    cdef PyObject* value
    cdef Py_ssize_t place
    if record is None:
        raise TypeError("None is not a record")
    for place in range(shape.count):
        value = PyDict_GetItemWithError(record, shape.names[place])
        if value == NULL:
            value = shape.defaults[place]
            if value == NULL:
                raise KeyError(shape.names[place])
        values[place] = value
    return shape.write(out, values)


cdef bytes taken(Buffer* out):
    return PyBytes_FromStringAndSize(out.data, out.length)


cdef class Encoder:
    """Frames and encodes dicts."""

    cdef bytes frame
    cdef Shape shape

    def encode(self, dict record):
        cdef Buffer out
        buffer_open(&out)
        try:
            put_raw(&out, self.frame)
            write_dict(&out, self.shape, record)
            return taken(&out)
        finally:
            buffer_close(&out)


cdef class RowEncoder:
    """Frames and encodes rows: the values of some fields in a fixed order, and a dict of others."""

    cdef bytes frame
    cdef Shape shape
    cdef Py_ssize_t count
    cdef Py_ssize_t places[FIELDS_MAX]

    def encode(self, tuple row not None, dict others not None):
        cdef PyObject* values[FIELDS_MAX]
        cdef Shape shape = self.shape
        cdef Py_ssize_t place
        cdef Buffer out
        if len(row) != self.count:
            raise ValueError(f"a row of {len(row)} values for {self.count} fields")
        for place in range(shape.count):
            values[place] = shape.defaults[place]
        for place in range(self.count):
            values[self.places[place]] = <PyObject*> row[place]
        for name, value in others.items():
            values[<Py_ssize_t> shape.places[name]] = <PyObject*> value
        for place in range(shape.count):
            if values[place] == NULL:
                raise KeyError(shape.names[place])
        buffer_open(&out)
        try:
            put_raw(&out, self.frame)
            shape.write(&out, values)
            return taken(&out)
        finally:
            buffer_close(&out)


cdef class Decoder:
    """Decodes what has its frame; hands what has another to `otherwise`, and errors to `refused`."""

    cdef bytes frame
    cdef Read read
    cdef object otherwise
    cdef object refused

    def decode(self, data):
        cdef Cursor cursor
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.frame)
        if (
            type(data) is not bytes
            or PyBytes_GET_SIZE(data) < size
            or memcmp(PyBytes_AS_STRING(data), PyBytes_AS_STRING(self.frame), size) != 0
        ):
            return self.otherwise(data)
        try:
            cursor_open(&cursor, data, size)
            record = self.read(&cursor)
            cursor_end(&cursor)
        except Exception as error:
            return self.refused(error)
        return record


cdef class Codec:
    """A topic's codec, for the schema of this fingerprint alone."""

    cdef readonly str fingerprint
    cdef Shape shape
    cdef Read read

    def encoder(self, bytes frame not None):
        """Return what frames and encodes a dict."""
        cdef Encoder made = Encoder.__new__(Encoder)
        made.frame = frame
        made.shape = self.shape
        return made.encode

    def row_encoder(self, bytes frame not None, tuple fields not None):
        """Return what frames and encodes the values of these fields, and a dict of others."""
        cdef RowEncoder made = RowEncoder.__new__(RowEncoder)
        made.frame = frame
        made.shape = self.shape
        made.count = len(fields)
        assert made.count == len(set(fields))
        for place in range(made.count):
            made.places[place] = self.shape.places[fields[place]]
        return made.encode

    def decoder(self, bytes frame not None, otherwise, refused):
        """Return what decodes framed bytes."""
        cdef Decoder made = Decoder.__new__(Decoder)
        made.frame = frame
        made.read = self.read
        made.otherwise = otherwise
        made.refused = refused
        return made.decode


cdef Codec codec(str fingerprint, Shape shape, Read read):
    cdef Codec made = Codec.__new__(Codec)
    made.fingerprint = fingerprint
    made.shape = shape
    made.read = read
    return made
