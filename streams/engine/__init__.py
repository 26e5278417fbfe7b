"""Runs batch processors on Kafka exactly once: README.md beside this file shows one and says what
is guaranteed.
"""

from streams.engine.context import Context
from streams.engine.position import Position
from streams.engine.run import build, run, run_app
from streams.engine.settings import EngineSettings
from streams.engine.task import Collection, Input, OnPoison, Record, Task, Timer
from streams.engine.transport import App

__all__ = [
    "App",
    "Collection",
    "Context",
    "EngineSettings",
    "Input",
    "OnPoison",
    "Position",
    "Record",
    "Task",
    "Timer",
    "build",
    "run",
    "run_app",
]
