"""The supervisor, with small stand-in scripts as its processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.local import control
from deploy.local.backoff import FIRST_S, LONGEST_S, STABLE_S, next_delay_s
from deploy.local.child import Child, Command, end, identify, wait_for
from deploy.local.home import PROJECT, Home
from deploy.local.stackfile import read_record, read_stack
from deploy.local.supervisor import StartError, Supervisor, bound_log
from deploy.local.units import Stage, Unit

SLEEPER = "import time; open({mark!r}, 'a').write('x'); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


def command(folder: Path, name: str, script: str, stop_within_s: float = 5.0) -> Command:
    mark = folder / f"{name}.mark"
    argv = (sys.executable, "-c", script.format(mark=str(mark)))
    log = folder / "logs" / f"{name}.log"
    return Command(name, argv, log, dict(os.environ), folder, stop_within_s=stop_within_s)


def unit(folder: Path, name: str, script: str = SLEEPER, stage: Stage = Stage.SERVICE) -> Unit:
    marked = (folder / f"{name}.mark").exists
    return Unit(name, stage, Child(command(folder, name, script)), marked)


@asynccontextmanager
async def supervised(home: Home, *units: Unit):
    supervisor = Supervisor(home)
    try:
        await supervisor.start(units)
        supervisor.publish({"kafka": "nowhere"})
        yield supervisor
    finally:
        await supervisor.stop()


async def until(condition, within_s: float = 20.0) -> None:
    assert await asyncio.to_thread(wait_for, condition, within_s, 0.02)


def pid_in_file(home: Home, name: str) -> int:
    stack = read_stack(home)
    return next(p["pid"] for p in stack["processes"] + stack["servers"] if p["name"] == name)


def test_the_wait_before_a_restart_doubles_up_to_a_bound_and_forgets_after_a_stable_run():
    waits = [0.0]
    for _ in range(12):
        waits.append(next_delay_s(waits[-1], ran_s=0.1))
    assert waits[1] == FIRST_S
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_S
    assert next_delay_s(LONGEST_S, ran_s=STABLE_S) == FIRST_S


async def test_a_killed_process_comes_back_with_its_new_pid_in_the_stack_file(tmp_path):
    home = Home(tmp_path)
    async with supervised(home, unit(tmp_path, "a"), unit(tmp_path, "b")):
        old, other = pid_in_file(home, "a"), pid_in_file(home, "b")
        os.kill(old, signal.SIGKILL)
        await until(lambda: pid_in_file(home, "a") != old)
        assert identify(pid_in_file(home, "a")) is not None
        assert pid_in_file(home, "b") == other
        assert read_stack(home)["processes"][0]["restarts"] == 1


async def test_a_held_process_stays_away_until_it_is_let_go(tmp_path):
    home = Home(tmp_path)
    async with supervised(home, unit(tmp_path, "a")) as supervisor:
        hold = home.hold("a")
        hold.parent.mkdir(parents=True)
        hold.touch()
        old = pid_in_file(home, "a")
        os.kill(old, signal.SIGKILL)
        await until(lambda: not supervisor.units[0].child.running())
        await asyncio.sleep(FIRST_S * 4)
        assert pid_in_file(home, "a") == old
        hold.unlink()
        await until(lambda: pid_in_file(home, "a") != old)


async def test_stopping_ends_every_process_also_one_that_is_deaf_or_paused(tmp_path):
    home = Home(tmp_path)
    deaf = unit(tmp_path, "deaf")
    deaf.child = Child(command(tmp_path, "deaf", DEAF, stop_within_s=0.3))
    paused = unit(tmp_path, "paused")
    async with supervised(home, deaf, paused):
        identities = [identify(pid_in_file(home, name)) for name in ("deaf", "paused")]
        os.kill(identities[1].pid, signal.SIGSTOP)
    assert [identify(identity.pid) for identity in identities] == [None, None]
    assert deaf.child.exit_code() == -signal.SIGKILL
    assert paused.child.exit_code() == -signal.SIGTERM  # woken, so that it could leave cleanly
    assert read_stack(home) is None


async def test_servers_outlive_the_services_when_the_stack_stops(tmp_path):
    order = tmp_path / "order"
    script = textwrap.dedent("""
        import signal, sys, time
        def leave(*_):
            time.sleep({pause}); open({order!r}, 'a').write({name!r} + ' '); sys.exit()
        signal.signal(signal.SIGTERM, leave)
        open({{mark!r}}, 'w').write('x')
        while True: time.sleep(0.01)
    """)

    def slow(name: str, pause: float, stage: Stage) -> Unit:
        text = script.format(pause=pause, order=str(order), name=name)
        return unit(tmp_path, name, text, stage)

    home = Home(tmp_path)
    server, edge = slow("server", 0, Stage.SERVER), slow("edge", 0.2, Stage.EDGE)
    async with supervised(home, server, edge, slow("service", 0.1, Stage.SERVICE)):
        pass
    assert order.read_text().split() == ["edge", "service", "server"]


async def test_a_process_that_never_starts_is_reported_with_the_end_of_its_log(tmp_path):
    supervisor = Supervisor(Home(tmp_path))
    broken = unit(tmp_path, "broken", "import sys; sys.exit('no such database')")
    try:
        with pytest.raises(StartError, match=r"broken ended \d+ times(.|\n)*no such database"):
            await supervisor.start([broken])
    finally:
        await supervisor.stop()


def test_a_child_does_not_outlive_a_parent_that_is_killed(tmp_path):
    script = textwrap.dedent(f"""
        import os, sys, time
        from pathlib import Path
        from deploy.local.child import Child, Command
        folder = Path({str(tmp_path)!r})
        child = Child(Command("c", (sys.executable, "-c", "import time; time.sleep(600)"),
                              folder / "log", dict(os.environ), folder))
        child.start()
        (folder / "new").write_text(str(child.pid)); (folder / "new").rename(folder / "pid")
        time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT)
    try:
        assert wait_for((tmp_path / "pid").exists, 20)
        identity = identify(int((tmp_path / "pid").read_text()))
        assert identity is not None
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: identify(identity.pid) != identity, 10)


async def test_down_ends_what_a_killed_supervisor_left_behind(tmp_path):
    home = Home(tmp_path)
    supervisor = Supervisor(home)
    orphan = unit(tmp_path, "orphan")
    orphan.child.detached = True
    await supervisor.start([orphan])
    identity = orphan.child.identity
    for task in supervisor._keepers:
        task.cancel()
    assert control.remove_leftovers(home) == 1
    orphan.child.process.wait()
    assert identify(identity.pid) is None


def test_a_process_that_took_over_an_old_pid_is_never_signalled(tmp_path):
    child = Child(command(tmp_path, "other", SLEEPER))
    child.start()
    try:
        stranger = type(child.identity)(child.pid, child.identity.started_ticks - 1)
        assert end(stranger, signal.SIGKILL, 1) is False
        assert child.running()
    finally:
        child.kill()


async def test_the_record_names_every_process_before_any_is_ready(tmp_path):
    home = Home(tmp_path)
    supervisor = Supervisor(home)
    starting = asyncio.create_task(
        supervisor.start([unit(tmp_path, "a", "import time; time.sleep(9)")])
    )
    try:
        await until(lambda: "a" in read_record(home).children)
        assert read_record(home).state == "starting"
    finally:
        await supervisor.stop()
        with pytest.raises(StartError):
            await starting


def test_a_log_that_grew_too_large_is_moved_aside_and_begins_again(tmp_path):
    log = tmp_path / "a.log"
    writer = log.open("ab", buffering=0)
    writer.write(b"old" * 100)
    bound_log(log, 1000)
    assert log.stat().st_size == 300
    bound_log(log, 100)
    writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "a.log.1").read_bytes() == b"old" * 100
    writer.close()
