"""Runs batch processors on Kafka exactly once: README.md beside this file shows one and says what
is guaranteed.
"""

from streams.engine import generations
from streams.engine.context import Context
from streams.engine.position import Position
from streams.engine.run import build, run, run_app
from streams.engine.settings import EngineSettings
from streams.engine.task import HORIZON_S, Collection, Input, OnPoison, Record, Task, Timer
from streams.engine.transport import App

__all__ = [
    "HORIZON_S",
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
    "generations",
    "run",
    "run_app",
]
