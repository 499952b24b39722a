"""`tunneld mosh` with shorter waits, for tests of what happens after a wait: `python hurried.py mosh ...`."""

from __future__ import annotations

import sys

from tunneld.cli import main
from tunneld.mosh import mosh_session, pool_policy, ssh_pool

if __name__ == "__main__":
    mosh_session.SECOND_STREAM_AFTER = mosh_session.SESSION_CHECK_EVERY = ssh_pool.POOL_CHECK_EVERY = 0.05
    mosh_session.CLIENT_END_TIMEOUT = ssh_pool.TERMINATE_GRACE = 0.3
    pool_policy.SUSPECTED = 1.0
    pool_policy.SHORTEST_RETRY = 0.1
    sys.exit(main(sys.argv[1:]))
