"""The read model: what payments.events, ledger.events and webhooks.events say, as tables to read.

Every batch of records becomes rows, and the offsets behind it, in one Postgres transaction; so the
tables are always what the log said up to the offsets they hold, and can be rebuilt from it at any
time.
"""
