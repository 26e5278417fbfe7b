"""The parts of the demo: what is sent, watched, killed, worked out and shown.

Shells touch the stack: `load`, `observer`, `kills`, `cpu`. Pure modules work out what it means:
`windows`, `outcomes`, `figures`, `hops`, `invariants`; and show it: `text`, `charts`, `page`.
"""
