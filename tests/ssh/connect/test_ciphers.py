"""Which ciphers lead, by what /proc/cpuinfo says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunneld.ssh.connect.ciphers import AES_FIRST, CHACHA_FIRST, preferred


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("processor : 0\nflags\t\t: fpu aes avx\n", AES_FIRST),
        ("processor : 0\nFeatures\t: fp asimd aes pmull\n", AES_FIRST),
        ("processor : 0\nFeatures\t: fp asimd evtstrm\n", CHACHA_FIRST),
        ("flags\t\t: fpu vaes avx\n", CHACHA_FIRST),
        ("model name : aes machine\n", CHACHA_FIRST),
    ],
)
def test_aes_comes_first_where_the_cpu_has_it(text: str, order: str, tmp_path: Path) -> None:
    """x86 and ARM say it in different words; without the instructions ChaCha20 leads."""
    info = tmp_path / "cpuinfo"
    info.write_text(text)
    assert preferred(info) == order


def test_an_unknown_cpu_gets_chacha_first(tmp_path: Path) -> None:
    """Where there is no such file."""
    assert preferred(tmp_path / "none") == CHACHA_FIRST
