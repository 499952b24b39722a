"""How the kernel's reports are read; that a kernel sends them is tested in tests/lab/test_watch.py."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.net.test_netlink import ADDRESS_LOST, LINK_LOST
from tunneld.net.kernel_news import DATAGRAMS_AT_ONCE, KernelNews
from tunneld.net.netlink import MULTICAST_GROUPS, Gone

KERNEL, PROGRAM = 0, 4711

Datagram = tuple[bytes, tuple[int, int]] | OSError


class NetlinkSocket:
    """What a test puts into the socket's queue, instead of the kernel."""

    def __init__(self, *queued: Datagram) -> None:
        self.queued = list(queued)
        self.bound: tuple[int, int] | None = None
        self.closed = False
        self.refused = False

    def bind(self, address: tuple[int, int]) -> None:
        if self.refused:
            raise OSError(errno.EPERM, "forbidden")
        self.bound = address

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        if not self.queued:
            raise BlockingIOError
        datagram = self.queued.pop(0)
        if isinstance(datagram, OSError):
            raise datagram
        return datagram

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> NetlinkSocket:
    made = NetlinkSocket()
    monkeypatch.setattr(socket, "socket", lambda *_: made)
    return made


def report(data: bytes, sender: int = KERNEL) -> Datagram:
    return data, (sender, 0)


def test_without_reports_there_is_nothing(kernel: NetlinkSocket) -> None:
    """None tells "no reports" from reports that name nothing."""
    news = KernelNews()
    assert kernel.bound == (0, MULTICAST_GROUPS)
    assert news.read() is None


def test_what_is_gone_is_gathered_over_all_reports(kernel: NetlinkSocket) -> None:
    """A burst is read at once."""
    kernel.queued = [report(LINK_LOST), report(b""), report(ADDRESS_LOST)]
    news = KernelNews()
    lost = news.read()
    assert lost is not None
    assert [each.interface for each in lost] == [4, 4]
    assert news.read() is None


def test_a_report_that_names_nothing_is_a_report(kernel: NetlinkSocket) -> None:
    """Something came, so the routes are worth a look."""
    kernel.queued = [report(b"")]
    assert KernelNews().read() == []


def test_another_programs_message_is_not_the_kernels(kernel: NetlinkSocket) -> None:
    """Any user of the machine may send to our socket."""
    kernel.queued = [report(LINK_LOST, PROGRAM)]
    assert KernelNews().read() is None


def test_an_overflow_counts_as_a_report(kernel: NetlinkSocket) -> None:
    """Nobody knows what was in the reports that the kernel dropped; those after them count as ever."""
    kernel.queued = [OSError(errno.ENOBUFS, "overflow"), report(LINK_LOST)]
    assert KernelNews().read() == [Gone(4)]


def test_a_broken_socket_ends_the_reports(kernel: NetlinkSocket) -> None:
    """The watch goes on by polling then."""
    kernel.queued = [OSError(errno.EBADF, "broken")]
    with pytest.raises(OSError, match="broken"):
        KernelNews().read()


def test_one_read_takes_so_many_datagrams(kernel: NetlinkSocket) -> None:
    """A router whose tables never rest does not hold the loop."""
    kernel.queued = [report(b"")] * (DATAGRAMS_AT_ONCE + 1)
    assert KernelNews().read() == []
    assert len(kernel.queued) == 1


def test_a_socket_that_may_not_listen_is_closed(kernel: NetlinkSocket) -> None:
    """A sandbox forbids it, and no descriptor is left open."""
    kernel.refused = True
    with pytest.raises(OSError, match="forbidden"):
        KernelNews()
    assert kernel.closed
