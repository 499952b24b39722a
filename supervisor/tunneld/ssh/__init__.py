"""Everything that speaks asyncssh."""
