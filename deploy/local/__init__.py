"""The embedded stack: one Kafka broker, one Postgres server and the services, on this machine.

Everything listens on 127.0.0.1 only, on ports that were free, with its data below one folder;
every process is ended by its recorded pid and start time, never by name.
"""
