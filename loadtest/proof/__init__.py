"""The parts of the demo: what is sent, watched, killed, worked out and shown.

Shells touch the stack: `run`, `load`, `observer`, `kills`, `cpu`. Pure modules work out what it
means: `outcomes`, `windows`, `tally`, `figures`; and show it: `text`, `charts`, `page`.
"""
