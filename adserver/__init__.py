"""adserver: a direct-sold ad server that a newsroom can run itself."""

__version__ = "0.1.0"
