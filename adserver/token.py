"""Signed tokens: what an event is about, carried in its own URL.

A token is 36 bytes, written as 48 base64url characters with no spare bits, so it has one spelling:

    key id u8 | allowed events u8 | day u16 | issue minute u32 | issuer 5 bytes | serial u32 | ad 7 bytes | MAC 12 bytes

Rules: the day is decided when the token is minted and never again, so an impression and its click share a
partition; the serial counts from 0 per issuer, so that one bit per token and event remembers what was counted;
the MAC is keyed BLAKE2s (RFC 7693) under a key derived for that day, so a day's leaked key ends with the day.
"""

import hashlib
import hmac
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from struct import Struct as Layout
from typing import Any

import msgspec

from adserver.errors import BadToken

LIFETIME_S = 4 * 3600
"""Seconds a token is good for."""
EARLY_S = 120
"""Seconds a token may come from the future: clocks of two machines differ."""
LENGTH = 48
REASONS = ("malformed", "forged", "expired", "future", "not-allowed")

_BODY = Layout("<BBHI5sI7s")
_TEXT = re.compile(rb"[A-Za-z0-9_-]{48}")
_MAC = 12
_SERIALS = 2**32


class Token(msgspec.Struct, frozen=True):
    """What a genuine token says. *ad* is the ad's key; *allowed* has one bit per event type."""

    allowed: int
    day: int
    minute: int
    issuer: bytes
    serial: int
    ad: bytes

    @property
    def issued(self) -> int:
        """Unix seconds, to the minute."""
        return self.minute * 60


class Keys:
    """The signing keys by id, and the id that signs. All of them verify."""

    def __init__(self, masters: Mapping[int, bytes], signing: int) -> None:
        self._masters = dict(masters)
        self.signing = signing
        self._of_day: dict[tuple[int, int], Any] = {}  # a blake2s object; hashlib's stub names it only on some versions

    def __repr__(self) -> str:
        return f"<Keys {sorted(self._masters)} signing with {self.signing}>"

    def fingerprint(self) -> str:
        """Tells whether two services share their keys, without telling the keys."""
        digest = hashlib.blake2s(digest_size=8, person=b"adtokfp")
        for key_id, master in sorted(self._masters.items()):
            digest.update(bytes([key_id]) + master)
        return digest.hexdigest()

    def salt(self, person: bytes) -> bytes:
        """32 bytes for another purpose, named by at most 8 bytes; they change with the key that signs."""
        return hashlib.blake2s(key=self._masters[self.signing], person=person).digest()

    def mac(self, key_id: int, day: int) -> Any | None:
        """A keyed hash to copy, or None for a key id that is not ours."""
        found = self._of_day.get((key_id, day))
        if found is None:
            master = self._masters.get(key_id)
            if master is None:
                return None
            key = hashlib.blake2s(day.to_bytes(2, "little"), key=master, person=b"adtokday").digest()
            found = hashlib.blake2s(key=key, digest_size=_MAC)
            if len(self._of_day) > 64:  # a forged token can name any day
                self._of_day.clear()
            self._of_day[key_id, day] = found
        return found


def parse_keys(text: str) -> Keys:
    """Keys from a secret file: a line each, `<id> <64 hex digits>`; the first line's signs. Raises ValueError."""
    masters: dict[int, bytes] = {}
    signing: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if (
            len(words) != 2
            or not re.fullmatch(r"[0-9]{1,3}", words[0])
            or not re.fullmatch(r"[0-9a-fA-F]{64}", words[1])
        ):
            raise ValueError(f"line {number}: expected a key id from 0 to 255, a blank and 64 hex digits")
        key_id = int(words[0])
        if key_id > 255 or key_id in masters:
            raise ValueError(f"line {number}: key id {key_id} is above 255 or named twice")
        masters[key_id] = bytes.fromhex(words[1])
        signing = key_id if signing is None else signing
    if signing is None:
        raise ValueError("no key in it; expected at least one line with a key id and 64 hex digits")
    return Keys(masters, signing)


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_", b"+/")


class Mint:
    """Makes tokens: each has the next serial, and where the serials do not suffice a new issuer begins at 0."""

    def __init__(self, keys: Keys, issuer: bytes) -> None:
        self._keys = keys
        self.issuer = issuer
        self.next_serial = 0
        self._day = -1
        self._template: Any = None

    def token(self, ad: bytes, day: int, now: float, allowed: int) -> bytes:
        """48 ASCII characters for one snippet; *ad* is 7 bytes."""
        if day != self._day:
            self._day, self._template = day, self._keys.mac(self._keys.signing, day)
        if self.next_serial == _SERIALS:
            self._begin_anew()
        serial = self.next_serial
        self.next_serial = serial + 1
        body = _BODY.pack(self._keys.signing, allowed, day, int(now) // 60, self.issuer, serial, ad)
        mac = self._template.copy()
        mac.update(body)
        return b2a_base64(body + mac.digest(), newline=False).translate(_URL_SAFE)

    def tokens(self, asks: Sequence[tuple[bytes, int]], day: int, now: float) -> tuple[bytes, int, list[bytes]]:
        """A token for each ad and what it is allowed: their issuer, the first one's serial, and they, with one serial
        after the other."""
        if day != self._day:
            self._day, self._template = day, self._keys.mac(self._keys.signing, day)
        if self.next_serial + len(asks) > _SERIALS:
            self._begin_anew()
        first = self.next_serial
        self.next_serial = first + len(asks)
        key_id, issuer, template, minute = self._keys.signing, self.issuer, self._template, int(now) // 60
        tokens = []
        for serial, (ad, allowed) in enumerate(asks, first):
            body = _BODY.pack(key_id, allowed, day, minute, issuer, serial, ad)
            mac = template.copy()
            mac.update(body)
            tokens.append(b2a_base64(body + mac.digest(), newline=False).translate(_URL_SAFE))
        return issuer, first, tokens

    def _begin_anew(self) -> None:
        self.issuer, self.next_serial = hashlib.blake2s(self.issuer, digest_size=5).digest(), 0


def verify(keys: Keys, text: bytes) -> Token:
    """The token that *text* spells, whatever its age. Raises BadToken: malformed or forged."""
    if not _TEXT.fullmatch(text):
        raise BadToken("malformed")
    raw = a2b_base64(text.translate(_STANDARD))
    key_id, allowed, day, minute, issuer, serial, ad = _BODY.unpack_from(raw)
    template = keys.mac(key_id, day)
    if template is None:
        raise BadToken("forged")
    mac = template.copy()
    mac.update(raw[: _BODY.size])
    if not hmac.compare_digest(mac.digest(), raw[_BODY.size :]):
        raise BadToken("forged")
    return Token(allowed, day, minute, issuer, serial, ad)


def check_age(token: Token, now: float) -> None:
    """Raises BadToken when *token* is too old or from too far in the future to count."""
    age = now - token.issued
    if age > LIFETIME_S + 60:  # the issue time is known to the minute
        raise BadToken("expired")
    if age < -EARLY_S:
        raise BadToken("future")
