"""The client's end of `tunneld mosh DEST`: ssh, mosh-client, and the pair between them.

Nothing here, and nothing that it imports, is Linux's alone, or slow to import: a person waits for it.
"""
