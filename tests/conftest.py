"""What tests of tunnels are given: a relay of their own, a journal to read, and a clock that they set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sshd import Sshd
from tests.tunnel.supervised import running_relay
from tests.virtual import Journal, VirtualTime


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Sshd]:
    """A relay that runs a plain OpenSSH server."""
    async with running_relay(tmp_path / "relay") as server:
        yield server


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()
