"""The command line, `headrace`: parses, calls one function, turns errors into one line and a code.

Benches, drills and the demo live in loadtest and are started by name; everything they need of a
stack they read from `stack.json`.
"""

from deploy.cli.main import main

__all__ = ["main"]
