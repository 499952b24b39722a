"""Names of streams that both ends know. Tested in tests/shim/test_shim.py and tests/shipped/test_mosh_agent.py."""

from __future__ import annotations

CONTROL_STREAM = "control"
"""The stream that started the ingress agent. When it ends, so does the agent."""

FIRST_STREAM = "first"
"""The stream that started the mosh agent. The agent outlives it."""
