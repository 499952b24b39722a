"""Forwards over one SSH connection: remote, local and dynamic."""
