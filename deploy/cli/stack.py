"""The commands that start, show and stop the stack: up, down, status."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError

from deploy.local import control
from deploy.local.home import Home
from deploy.local.stackfile import read_record, read_stack
from deploy.local.status import Lag, lags, process_rows, table
from deploy.local.units import serves

if TYPE_CHECKING:
    import argparse

    from deploy.local.settings import Settings

_NOT_UP = "no stack is up in {home}: headrace up (or make up) starts one"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add up, down and status to the parser."""
    up = commands.add_parser("up", help="start the stack and leave it running; ready on return")
    up.set_defaults(command=_up)
    down = commands.add_parser("down", help="stop the stack; no process of it is left")
    down.set_defaults(command=_down)
    status = commands.add_parser("status", help="show roles, pids, restarts and consumer lag")
    status.add_argument("--json", action="store_true", help="print one JSON object instead")
    status.set_defaults(command=_status)


def _up(settings: Settings, _: argparse.Namespace) -> int:
    home = Home(settings.home)
    was_up = control.is_up(home)
    variables = {k: v for k, v in os.environ.items() if k.startswith("HEADRACE_")}
    control.up(settings, variables, sys.stdout)
    stack = read_stack(home) or {}
    print("headrace was up already" if was_up else "headrace is up")
    print(f"  gateway   {stack['gateway_url']}   (API key in {home.stack_file})")
    print(f"  kafka     {stack['kafka']}")
    print(f"  logs      {home.root / 'logs'}")
    return 0


def _down(settings: Settings, _: argparse.Namespace) -> int:
    stopped = control.down(Home(settings.home), sys.stdout)
    print("headrace is down" if stopped else f"nothing to stop in {settings.home}")
    return 0


def _status(settings: Settings, arguments: argparse.Namespace) -> int:
    home = Home(settings.home)
    stack = read_stack(home)
    record = read_record(home)
    if stack is None or record is None or not record.alive():
        print(_NOT_UP.format(home=settings.home), file=sys.stderr)
        return 1
    ready = {process["name"]: True for process in stack["servers"]}
    for process in stack["processes"]:
        ready[process["name"]] = serves(process["metrics_url"], None)
    behind = asyncio.run(_lags(stack["kafka"]))
    if arguments.json:
        print(json.dumps(_public(stack, ready, behind)))
        return 0
    print(f"gateway {stack['gateway_url']}   kafka {stack['kafka']}\n")
    print(table(process_rows(stack, ready)))
    rows = [(lag.group, lag.topic, str(lag.lag), str(lag.partitions)) for lag in behind or []]
    if behind is None:
        print("\nKafka does not answer: no lag to show")
    elif rows:
        print("\n" + table([("GROUP", "TOPIC", "LAG", "PARTITIONS"), *rows]))
        print("A transaction's marker counts as one record until the next one follows it.")
    return 0


def _public(
    stack: dict[str, Any], ready: dict[str, bool], behind: list[Lag] | None
) -> dict[str, Any]:
    """The status as JSON, without any secret of `stack.json`."""
    shown = ("gateway_url", "gateway_urls", "webhooks_url", "kafka", "partitions")
    processes = [process | {"ready": ready[process["name"]]} for process in stack["processes"]]
    return {name: stack[name] for name in shown} | {
        "servers": stack["servers"],
        "processes": processes,
        "lag": None if behind is None else [asdict(lag) for lag in behind],
    }


async def _lags(bootstrap: str) -> list[Lag] | None:
    try:
        return await lags(bootstrap)
    except (KafkaError, OSError):
        return None
