"""The house rules, executable: what a reader may rely on in every file of the tree.

Each failure names the place and says what to do. A module that says "Pure." in its docstring
decides only: neither it nor anything of ours it imports touches the world.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from schemas.topics import TOPICS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "gateways", "streams", "ledger_writer", "deploy", "loadtest")
MODULES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
MEASURES = {("loadtest", "bench"), ("loadtest", "drills")}
SOURCES = sorted(chain(MODULES, (ROOT / "tests").rglob("*.py")))
KNOWN = frozenset(MODULES)

FUNCTION_LINES, MODULE_LINES, COLUMNS, OPENING_LINES = 60, 300, 100, 10
NOT_IN_NAMES = set(
    "manager helper util utils common base data info handler service processor".split()
)
SPOKEN_FOR = {"data_received"}  # asyncio calls it so
WORLD = set(
    "aiokafka asyncio asyncpg ctypes duckdb faust fcntl logging multiprocessing os pyiceberg"
    " prometheus_client requests rocksdict secrets select shutil signal socket sqlalchemy sqlite3"
    " structlog subprocess sys tempfile threading time uuid".split()
)
CLOCKS = {"now", "utcnow", "today"}
MUST_BE_PURE = re.compile(
    r"(decide|saga|velocity|dedup|landing|schedule|canonical|backoff|plan)\.py$"
)
# Written in halves, so that this file holds none of them.
REGISTRIES = [
    left + "." + right
    for left, right in (
        ("pypi", "org"), ("pythonhosted", "org"), ("maven", "org"), ("maven.apache", "org"),
        ("sonatype", "com"), ("sonatype", "org"), ("npmjs", "org"), ("npmjs", "com"),
        ("crates", "io"), ("rubygems", "org"), ("golang", "org"), ("hub.docker", "com"),
    )
]  # fmt: skip


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def where(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def is_pure(path: Path) -> bool:
    says = re.search(r"\bPure[.:;]", ast.get_docstring(tree_of(path)) or "")
    return says is not None and path.name != "__init__.py"


def runtime_imports(path: Path) -> list[tuple[str, int]]:
    """Absolute names imported when the module runs: not those under TYPE_CHECKING."""
    found: list[tuple[str, int]] = []
    todo: list[ast.AST] = [tree_of(path)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
        todo += ast.iter_child_nodes(node)
    return found


def module_of(name: str) -> Path | None:
    """The file of one of our modules, from `a.b` or from `a.b.something_in_it`."""
    for dotted in (name, name.rpartition(".")[0]):
        stem = ROOT.joinpath(*dotted.split("."))
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path in KNOWN:
                return path
    return None


def draws_from_seeds(path: Path) -> bool:
    """Of `random` it uses generators only, which are seeded by whoever calls."""
    attributes = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute))
    return {a.attr for a in attributes if ast.unparse(a.value) == "random"} <= {"Random"}


@cache
def touches_world(path: Path) -> str:
    """How a module reaches the outside world, through which imports; empty if it does not."""
    for name, line in runtime_imports(path):
        if name.split(".")[0] in WORLD or (name == "random" and not draws_from_seeds(path)):
            return f"{where(path, line)} imports {name}"
        ours = module_of(name)
        if ours is not None and ours != path and touches_world(ours):
            return f"{where(path, line)} -> {touches_world(ours)}"
    return ""


def test_functions_and_modules_are_short_enough_to_read():
    long = [
        f"{where(path, node.lineno)} {node.name}: {size} lines, split it (at most {FUNCTION_LINES})"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (size := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]
    long += [
        f"{where(path)} {size} lines, move a part out (at most {MODULE_LINES})"
        for path in MODULES
        if (size := len(path.read_text().splitlines())) > MODULE_LINES
    ]
    assert not long, "\n".join(long)


def test_lines_fit_and_nothing_is_left_for_later():
    later = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b")
    wrong = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > COLUMNS:
                wrong.append(f"{where(path, number)} is {len(line)} wide: break it at {COLUMNS}")
            if later.search(line):
                wrong.append(f"{where(path, number)} leaves work for later: do it or file it")
    assert not wrong, "\n".join(wrong)


def test_a_module_opens_with_what_it_decides_or_talks_to():
    wrong = [
        f"{where(path)} opens with {len(text)} lines: say in 1 to {OPENING_LINES} what it decides, "
        "its invariant, and what it must never do"
        for path in MODULES
        if not 1
        <= len(text := (ast.get_docstring(tree_of(path)) or "").splitlines())
        <= OPENING_LINES
    ]
    assert not wrong, "\n".join(wrong)


def test_names_say_what_a_thing_does():
    defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    wrong = []
    for path in MODULES:
        nodes = [node for node in ast.walk(tree_of(path)) if isinstance(node, defined)]
        for name, line in [(path.stem, 1), *((node.name, node.lineno) for node in nodes)]:
            words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
            if words & NOT_IN_NAMES and name not in SPOKEN_FOR:
                wrong.append(f"{where(path, line)} {name}: name it by its answer or effect")
    assert not wrong, "\n".join(wrong)


def test_pure_modules_decide_only():
    pure = [path for path in MODULES if is_pure(path)]
    assert pure, "no module says 'Pure.' in its docstring: the rule would hold by itself"
    wrong = [
        f"{how}: a pure module gets what it needs as arguments; let its shell read and write"
        for path in pure
        if (how := touches_world(path))
    ]
    wrong += [
        f"{where(path, node.lineno)} reads a clock: take the time from the record"
        for path in pure
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_that_decide_say_that_they_are_pure():
    wrong = [
        f"{where(path)}: say 'Pure.' in its docstring, and move what is not to another module"
        for path in MODULES
        if MUST_BE_PURE.search(path.name) and not is_pure(path)
    ]
    assert not wrong, "\n".join(wrong)


def test_top_level_packages_meet_only_in_schemas():
    """Benches and drills may also start servers and run a service's parts; nothing imports them."""
    wrong = [
        f"{where(path, line)} imports {name}: meet it in a topic, or move what both need to schemas"
        for path in MODULES
        if (own := path.relative_to(ROOT).parts)[:2] not in MEASURES
        for name, line in runtime_imports(path)
        if (other := name.split(".")[0]) in PACKAGES and other not in {own[0], "schemas"}
    ]
    wrong += [
        f"{where(path, line)} imports {name}: move what it needs out of it"
        for path in MODULES
        if path.relative_to(ROOT).parts[:2] not in MEASURES
        for name, line in runtime_imports(path)
        if tuple(name.split(".")[:2]) in MEASURES
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_names_a_package_registry():
    hosts = re.compile("|".join(re.escape(host) for host in REGISTRIES), re.IGNORECASE)
    wrong = []
    ours = [ROOT / ".ci", *(path for path in ROOT.iterdir() if path.name[0] != ".")]
    for path in chain(*([top, *top.rglob("*")] for top in ours)):
        found = path.is_file() and hosts.search(path.read_text(errors="ignore"))
        if found:
            wrong.append(
                f"{where(path)} names {found[0]}: let the tool use what it is configured with"
            )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_every_topic_has_owner_retention_and_residency(topic):
    row = f"schemas/topics.py, {topic.name}"
    assert topic.owner.split(".")[0] in PACKAGES, f"{row}: name the package that writes it as owner"
    assert topic.retention_ms > 0 or topic.compacted, (
        f"{row}: say how long it is kept, or compact it"
    )
    assert topic.residency, f"{row}: say where its bytes may lie"
