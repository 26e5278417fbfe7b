"""The description of the HTTP interface, made from the route table and the types it uses.

`document` builds OpenAPI 3.1 (pure), `page` shows it to people without any asset from elsewhere
(pure).
"""
