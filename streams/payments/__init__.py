"""The payments task: deduplicate, check velocity, drive the saga; one batch, no topic between them.

`dedup`, `velocity`, `saga` and `records` decide and do nothing else; `task` joins them over the
engine's state.
"""
