"""Compiles the plain task's Avro codecs by the project's own generator, as `schemas` its topics'.

Without Cython or a C compiler the task uses fastavro; the bytes are the same. What was built is
kept below the bench's folder under the hash of its source.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from loadtest.bench import streams_records as records
from schemas import codegen

MODULE: Final = "headrace_bench_codec"
_SCHEMAS: Final[dict[str, codegen.Schema]] = {
    "bench.in": records.IN_SCHEMA,
    "bench.out": records.OUT_SCHEMA,
}
_SETUP: Final = """\
from setuptools import Extension, setup
from Cython.Build import cythonize
setup(ext_modules=cythonize([Extension("{module}", ["{module}.pyx"])], quiet=True))
"""

Encode = Callable[[dict[str, Any]], bytes]
Decode = Callable[[bytes], dict[str, Any]]


def build(folder: Path) -> Path | None:
    """Return the compiled module's file, built if need be; None where that can't be done."""
    files = {f"{MODULE}.pyx": codegen.generate(_SCHEMAS)}
    files |= {path.name: path.read_text() for path in codegen.INCLUDED}
    digest = hashlib.sha256("".join([*files.values(), sys.version]).encode()).hexdigest()[:16]
    place = folder / digest
    built = next(place.glob(f"{MODULE}*.so"), None)
    if built is not None:
        return built
    place.mkdir(parents=True, exist_ok=True)
    for name, text in (files | {"setup.py": _SETUP.format(module=MODULE)}).items():
        (place / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=place,
        capture_output=True,
        check=False,
    )
    return next(place.glob(f"{MODULE}*.so"), None) if done.returncode == 0 else None


def codecs(compiled: Path | None) -> tuple[Decode, Encode]:
    """Return the decoder of payments and the encoder of what they cause."""
    if compiled is None:
        return (
            records.decoder(records.IN_SCHEMA),
            records.encoder(records.OUT_SCHEMA, records.OUT_FRAME),
        )
    spec = importlib.util.spec_from_file_location(MODULE, compiled)
    assert spec is not None, compiled
    assert spec.loader is not None, compiled
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    coded = module.CODECS
    return (
        coded["bench.in"].decoder(records.IN_FRAME, _refuse, _refuse),
        coded["bench.out"].encoder(records.OUT_FRAME),
    )


def _refuse(what: object) -> NoReturn:
    raise ValueError(f"no record of the bench: {what!r}")
