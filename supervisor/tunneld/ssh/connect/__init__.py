"""One SSH connection of ours: where it leads, how it logs in, how it fails, whether it lives."""
