"""HTTP/1.1 without a framework: parse, bound, answer in order.

`connection` is the protocol of one client, `server` the listener with its bounds and its drain,
`exchange` one request and its answer, `responses` the bytes of an answer (pure), `routing` the
route table (pure), `dispatch` the outermost loop of a request. Knows nothing of payments.
"""
