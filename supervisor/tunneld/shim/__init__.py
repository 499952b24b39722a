"""The tunnel's end of the datagrams: the agent on the relay, the streams to it, and the sockets towards mosh-server."""
