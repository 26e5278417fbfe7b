"""The ledger: the authority for balances. It turns commands into double-entry postings.

One writer per partition reads `ledger.commands`, decides each command in log order (`decide`,
pure), commits rows, entries, identities and balances to Postgres in one statement behind a fence
(`postgres`), and publishes `ledger.events` that are derived from the committed rows alone
(`event`). Run it with `python -m ledger_writer`; create or upgrade its tables first with
`python -m ledger_writer.migrate`; prove its tables with `python -m ledger_writer.audit`.
"""
