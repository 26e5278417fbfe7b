"""Fault drills: real processes on a real broker are broken on purpose, and what is left is compared
with a model.
"""
