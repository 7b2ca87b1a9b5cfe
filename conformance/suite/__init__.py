"""The tests that put a broker on trial: one file per section of the specification. See conformance/__init__.py."""
