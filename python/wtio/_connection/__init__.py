"""One QUIC connection and its sessions: where the engine, the HTTP/3 layer and the public objects meet.

Import from the modules: ``base`` for what both sides have, ``client`` and ``server`` for what differs.
"""
