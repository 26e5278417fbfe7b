"""One gateway process's settings: read once, from the environment alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas import environment


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting; counts, bytes and seconds as their names say."""

    kafka: str
    partitions: int
    host: str
    port: int
    index: int
    api_keys_file: str
    webhook_sources_file: str
    views_dsn: str
    metrics_port: int
    log_level: str
    log_sample: int
    drain_s: float = 3.5
    """For requests in progress at SIGTERM; what remains of 5 s is for closing."""
    recent_max: int = 100_000
    waiters_max: int = 4_096
    views_connections_max: int = 8

    @property
    def name(self) -> str:
        """What logs and Kafka call this process."""
        return f"gateway-{self.index}"

    @property
    def reply_partition(self) -> int:
        """The partition of gateway.replies that is this process's."""
        return self.index % self.partitions


def from_environment(env: Mapping[str, str]) -> Settings:
    """Build the settings; SettingError says which variable is wrong, and why."""
    read = environment.read(
        env,
        "HEADRACE_KAFKA",
        "HEADRACE_PARTITIONS",
        "HEADRACE_GATEWAY_HOST",
        "HEADRACE_GATEWAY_PORT",
        "HEADRACE_GATEWAY_INDEX",
        "HEADRACE_API_KEYS_FILE",
        "HEADRACE_WEBHOOK_SOURCES_FILE",
        "HEADRACE_VIEWS_READER_DSN",
        "HEADRACE_METRICS_PORT",
        "HEADRACE_LOG_LEVEL",
        "HEADRACE_LOG_SAMPLE",
    )
    return Settings(
        kafka=read["kafka"],
        partitions=read["partitions"],
        host=read["gateway_host"],
        port=read["gateway_port"],
        index=read["gateway_index"],
        api_keys_file=read["api_keys_file"],
        webhook_sources_file=read["webhook_sources_file"],
        views_dsn=read["views_reader_dsn"],
        metrics_port=read["metrics_port"],
        log_level=read["log_level"],
        log_sample=read["log_sample"],
    )
