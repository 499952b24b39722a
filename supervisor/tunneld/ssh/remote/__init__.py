"""Programs that we run on the far side of an SSH connection."""
