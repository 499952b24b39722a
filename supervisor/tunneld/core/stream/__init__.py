"""Datagrams inside a byte stream: frames, flows, and the window that keeps them fresh. Sans-IO."""
