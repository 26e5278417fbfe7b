"""Benches: each measures one part on this machine, beside its peers where it is asked to, and ends
with one JSON line.
"""
