"""Payments and accounts: requests into events, views into answers.

Pure: `bodies` (what clients send), `rules` (what types can't say), `canonical` (the body hash),
`requests` (the records), `present` (what clients get), `cursors`. Memory with bounds: `recent` (ids
seen here), `waiters`, `versions`. Shells: `intake` (offer, wait, answer), `create`, `batch`,
`reads`, `views` (Postgres).
"""
