"""The datagram half: UDP sockets and streams around the core."""
