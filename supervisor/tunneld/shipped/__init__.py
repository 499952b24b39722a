"""Programs that run on machines without tunneld, from their source text: standard library, Python 3.9."""
