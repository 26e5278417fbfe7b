"""The plain task as others do it: one program per peer, each run in an environment of its own."""
