"""The client's end of `tunneld mosh DEST`: ssh, mosh-client, and the pair of endpoints that joins them.

Nothing in this room, and nothing that it imports, works on Linux only or is slow to import: a person waits for it.
"""
