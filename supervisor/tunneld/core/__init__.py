"""The sans-IO half: standard library only, no sockets, no clock; runs on Python 3.9."""
