"""The contract that every part of headrace meets in.

Record schemas (`avro/`), the topic table, the wire format, ids and slots, money, the error tree,
the environment, and how a process shows itself (logs, metrics). This package imports nothing else
of ours, so that gateways, streams and the ledger writer can change without one another.
"""
