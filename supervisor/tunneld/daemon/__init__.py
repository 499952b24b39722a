"""One process that holds several tunnels: its signals, its status sockets, its run folder."""
