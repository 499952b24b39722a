"""Programs that we run on the relay."""
