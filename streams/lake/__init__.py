"""The lake: every topic lands in Iceberg tables, exactly once.

`sink` opens a session, `session` reads the log and decides when to land; `bronze` holds what a
topic's table looks like, how its bytes become rows and how rows and offsets become one snapshot. A
landed offset never lands again: the table says what it holds, Kafka's committed offsets are only a
hint for lag tools.
"""
