"""Bronze: one table a topic, its records as they were written, in log order.

`tables` and `decode` and `landing` are pure; `commit` is the one module that changes a table.
"""
