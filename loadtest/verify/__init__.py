"""Prove on a running stack that the log, the ledger, the views and the lake say the same.

Independent of the services: it reads Kafka `read_committed`, the ledger and the views as their
reader roles, and bronze through the lake's catalog, decodes with a library of its own, and compares
in SQL (`checks` and the modules named after it). It writes nothing anywhere.
The last line printed is one JSON object; the exit code is 1 where anything differs.
"""

from loadtest.verify.command import main

__all__ = ["main"]
