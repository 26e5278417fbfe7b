"""An open-loop generator: what is sent, and when, is fixed before the first byte leaves.

Pure modules decide: `plan` and `webhooks` what is sent (seeded), `schedule` when, `render` how it
looks on the wire, `answers` what an answer means and whether to send again. `connection` and
`open_loop` do the I/O. Latency counts from the intended time, so a server that stalls can't hide
its queue.
"""
