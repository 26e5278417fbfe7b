"""Gateways: HTTP in, durable events out. Stateless; one process a core.

`http/` speaks HTTP/1.1 over httptools, `kafka/` makes events durable and reads replies, `payments/`
and `webhooks/` turn requests into events, `openapi/` describes them. `app` is the composition root.
Nothing here decides about money: what a gateway knows (recent ids, versions) is a help, never the
truth.
"""
