"""The service behind a forward: it gives bytes, takes bytes, or echoes. Run as `python target.py PORT`.

It uses only the standard library. A client begins with one letter, and a count in eight bytes. `g` asks for so many
bytes. `p` announces so many bytes; the service answers with one byte when it has them all. `e` asks for an echo of
everything that follows.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import sys

REQUEST = struct.Struct(">cQ")
CHUNK = 1 << 20  # bytes in one system call: the service must cost little beside what is measured
GIVE, TAKE, ECHO = b"g", b"p", b"e"


class Service(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        peer: socket.socket = self.request
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The side that measures leaves when it has seen enough.
        with contextlib.suppress(ConnectionError):
            wanted, count = REQUEST.unpack(peer.recv(REQUEST.size, socket.MSG_WAITALL))
            if wanted == GIVE:
                give(peer, count)
            elif wanted == TAKE:
                take(peer, count)
                peer.sendall(b".")
            else:
                while data := peer.recv(CHUNK):
                    peer.sendall(data)


def give(peer: socket.socket, count: int) -> None:
    chunk = memoryview(bytes(CHUNK))
    while count:
        count -= peer.send(chunk[:count])


def take(peer: socket.socket, count: int) -> None:
    """Read so many bytes, and throw them away.

    Raises:
        ConnectionError: the peer has sent fewer bytes, and ended.
    """
    room = memoryview(bytearray(CHUNK))
    while count:
        got = peer.recv_into(room, min(count, CHUNK))
        if not got:
            raise ConnectionResetError(f"the peer ended {count} bytes too early")
        count -= got


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
