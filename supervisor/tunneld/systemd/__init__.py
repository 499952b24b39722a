"""What is particular to systemd: what the daemon tells it, and what the command line installs. No daemon needs it."""
