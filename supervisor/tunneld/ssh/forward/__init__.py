"""Forwards over one SSH connection, in every direction."""
