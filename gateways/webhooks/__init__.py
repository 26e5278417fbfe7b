"""Webhooks: a partner's delivery, verified, kept byte-exact.

Pure: `schemes` (the table of verifiers), `verify` (its interpreter), `sources` (who may deliver,
with which secrets). `receive` is the shell of the route.
"""
