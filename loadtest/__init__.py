"""How we know: load, faults, and an independent comparison of log, ledger, views and lake.

This package starts headrace as processes and looks at it from outside: over HTTP, in Kafka, in the
databases and in the lake. It imports the contract (`schemas`) and nothing of the services.
"""
