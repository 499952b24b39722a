"""What this machine's network tells us: its routes, that they changed, that the machine slept, where a name leads."""
