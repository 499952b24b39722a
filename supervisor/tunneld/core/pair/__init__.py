"""A pair: the two ends that exchange packets over UDP paths, with streams as their fallback. Sans-IO."""
