"""What lets somebody in: 256 random bits, shown to one person and kept here only as a hash.

A hash without salt or cost is enough, for nobody can guess 256 bits; each kind has hashes of its own.
"""

import hashlib
import re
import secrets

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def new_secret() -> str:
    """43 characters that go into a cookie, a header or an address as they are."""
    return secrets.token_urlsafe(32)


def is_secret(text: str) -> bool:
    """Whether *text* has the form of one, so that nothing else is asked of the store."""
    return _TOKEN.fullmatch(text) is not None


def digest(kind: bytes, secret: str) -> str:
    """What is kept of *secret*; *kind* is at most 8 bytes."""
    return hashlib.blake2s(secret.encode(), person=kind).hexdigest()
