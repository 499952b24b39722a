"""The running form of one profile: sessions, forwards, relays, canary rounds."""
