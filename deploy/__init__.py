"""How headrace runs: the embedded stack of one machine, and the command line in front of it.

Starts the services as processes and configures them through the environment; it never imports
one of them, and of our own packages it knows only `schemas`.
"""
