"""Signed tokens: genuine ones say what was minted, all others are told apart from them."""

import ast
import base64
import hashlib
import inspect
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver import token
from adserver.errors import BadToken
from adserver.token import EARLY_S, LENGTH, LIFETIME_S, Keys, Mint, Token, check_age, parse_keys, verify
from tests.make import NOON

OLD, NEW, FOREIGN = b"o" * 32, b"n" * 32, b"f" * 32
KEYS = Keys({1: OLD}, 1)
ISSUER = b"abcde"
AD = b"bread-1"
DAY = 20514

minted = st.builds(
    Token,
    allowed=st.integers(0, 255),
    day=st.integers(0, 2**16 - 1),
    minute=st.integers(0, 2**32 - 1),
    issuer=st.binary(min_size=5, max_size=5),
    serial=st.integers(0, 2**32 - 1),
    ad=st.binary(min_size=7, max_size=7),
)


def mint(said: Token, keys: Keys = KEYS) -> bytes:
    one = Mint(keys, said.issuer)
    one.next_serial = said.serial
    return one.token(said.ad, said.day, said.issued, said.allowed)


def a_token(keys: Keys = KEYS) -> bytes:
    return Mint(keys, ISSUER).token(AD, DAY, NOON, 7)


def refusal(text: bytes, keys: Keys = KEYS) -> str:
    with pytest.raises(BadToken) as caught:
        verify(keys, text)
    return caught.value.reason


@settings(max_examples=100)
@given(minted)
def test_says_what_was_minted(said: Token) -> None:
    """
    A genuine token reads back as it was minted, and is 48 characters that need no escaping in a URL.
    """
    text = mint(said)
    assert len(text) == LENGTH == 48
    assert text.replace(b"-", b"").replace(b"_", b"").isalnum()
    assert verify(KEYS, text) == said


@settings(max_examples=50)
@given(minted, st.integers(0, 36 * 8 - 1))
def test_a_flipped_bit_is_a_forgery(said: Token, bit: int) -> None:
    """
    Whichever bit of a token is turned, it is not genuine any more.
    """
    raw = bytearray(base64.urlsafe_b64decode(mint(said)))
    raw[bit // 8] ^= 1 << bit % 8
    assert refusal(base64.urlsafe_b64encode(raw)) == "forged"


@settings(max_examples=100)
@given(st.integers(0, 47), st.characters(max_codepoint=255))
def test_has_one_spelling(at: int, char: str) -> None:
    """
    Another character anywhere in a token makes it another token, never the same one spelled differently.
    """
    text = a_token()
    other = text[:at] + char.encode("latin-1") + text[at + 1 :]
    if other != text:
        assert refusal(other) in ("malformed", "forged")


@settings(max_examples=100)
@given(st.binary(max_size=80))
def test_random_bytes_are_refused(text: bytes) -> None:
    """
    What is not a token is refused, whatever it is.
    """
    assert refusal(text) in ("malformed", "forged")


def test_a_truncated_or_extended_token_is_malformed() -> None:
    """
    Cut at any character, or with anything before or after it, a token is malformed.
    """
    text = a_token()
    others = [text[:length] for length in range(48)]
    others += [text + b"=", text + b"==", text + b"\n", b" " + text, text + b"A", text * 2, text + b"%00", b""]
    assert {refusal(other) for other in others} == {"malformed"}


def test_the_other_base64_alphabet_is_malformed() -> None:
    """
    `+` and `/` are not characters of a token, so no token can be respelled with them.
    """
    for serial in range(50):
        text = mint(Token(7, DAY, 1, ISSUER, serial, AD))
        respelled = text.replace(b"-", b"+").replace(b"_", b"/")
        if respelled != text:
            assert refusal(respelled) == "malformed"
            return
    raise AssertionError("no token with '-' or '_' among fifty")


def test_look_alike_letters_are_malformed() -> None:
    """
    A token in fullwidth letters is not a token.
    """
    wide = "".join(chr(ord(char) + 0xFEE0) for char in a_token().decode())
    assert refusal(wide.encode()) == "malformed"


def test_a_foreign_key_makes_no_genuine_token() -> None:
    """
    A token signed with another master under the same key id is forged; so is one of an unknown key id.
    """
    assert refusal(a_token(Keys({1: FOREIGN}, 1))) == "forged"
    assert refusal(a_token(Keys({9: OLD}, 9))) == "forged"


def test_a_days_key_signs_for_that_day_only() -> None:
    """
    What signs one day's tokens signs no other day's: a leaked day key ends with the day.
    """
    of_today, of_tomorrow = KEYS.mac(1, DAY), KEYS.mac(1, DAY + 1)
    assert of_today is not None
    assert of_tomorrow is not None
    assert of_today.digest() != of_tomorrow.digest()
    body = base64.urlsafe_b64decode(mint(Token(7, DAY + 1, 1, ISSUER, 0, AD)))[:24]
    stolen = of_today.copy()
    stolen.update(body)
    assert refusal(base64.urlsafe_b64encode(body + stolen.digest())) == "forged"


def test_a_token_of_any_day_can_be_asked_about() -> None:
    """
    Tokens that name ten thousand days cost no more memory than those of some sixty.
    """
    keys = Keys({1: OLD}, 1)
    for day in range(0, 2**16, 7):
        assert refusal(mint(Token(7, day, 1, ISSUER, 0, AD), Keys({1: FOREIGN}, 1)), keys) == "forged"
    assert len(keys._of_day) <= 65
    assert verify(keys, a_token()).ad == AD


def test_serials_count_from_0_per_issuer() -> None:
    """
    Each token of an issuer takes the next serial, so that one bit per token remembers what was counted.
    """
    one = Mint(KEYS, ISSUER)
    serials = [verify(KEYS, one.token(AD, DAY, NOON, 7)).serial for _ in range(3)]
    assert serials == [0, 1, 2]


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (0, None),
        (LIFETIME_S, None),
        (LIFETIME_S + 60, None),  # it may have been minted in the last second of its minute
        (LIFETIME_S + 61, "expired"),
        (10**9, "expired"),
        (-EARLY_S, None),
        (-EARLY_S - 1, "future"),
        (-(10**9), "future"),
    ],
)
def test_counts_for_four_hours(age: float, reason: str | None) -> None:
    """
    A token counts from two minutes before its minute, for clocks that differ, until four hours after it.
    """
    said = Token(7, DAY, int(NOON) // 60, ISSUER, 0, AD)
    if reason is None:
        check_age(said, said.issued + age)
        return
    with pytest.raises(BadToken) as caught:
        check_age(said, said.issued + age)
    assert caught.value.reason == reason


def test_a_retired_key_still_verifies() -> None:
    """
    After a rotation new tokens are signed with the new key, and those out there still count; once the old key is
    taken out they do not.
    """
    old = a_token(Keys({1: OLD}, 1))
    both = parse_keys(f"2 {NEW.hex()}\n1 {OLD.hex()}\n")
    assert both.signing == 2
    assert verify(both, old).ad == AD
    new = a_token(both)
    assert verify(Keys({2: NEW}, 2), new).ad == AD
    assert refusal(old, Keys({2: NEW}, 2)) == "forged"


def test_a_key_file_takes_comments_blank_lines_and_capitals() -> None:
    """
    A key file may be commented, and its hex digits written either way.
    """
    keys = parse_keys(f"# rotated in March\n\n  7   {OLD.hex().upper()}  # signs\n255 {NEW.hex()}\r\n0 {FOREIGN.hex()}")
    assert repr(keys) == "<Keys [0, 7, 255] signing with 7>"
    assert keys.fingerprint() == Keys({0: FOREIGN, 7: OLD, 255: NEW}, 255).fingerprint()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no key in it"),
        ("# none\n\n", "no key in it"),
        ("1", "line 1: expected a key id"),
        (OLD.hex(), "line 1: expected a key id"),
        (f"1 {OLD.hex()[:-1]}", "line 1: expected a key id"),
        (f"1 {OLD.hex()}0", "line 1: expected a key id"),
        (f"1 {OLD.hex()} more", "line 1: expected a key id"),
        (f"-1 {OLD.hex()}", "line 1: expected a key id"),
        (f"１ {OLD.hex()}", "line 1: expected a key id"),  # a fullwidth digit
        (f"1 {'g' * 64}", "line 1: expected a key id"),
        (f"256 {OLD.hex()}", "line 1: key id 256 is above 255"),
        (f"1 {OLD.hex()}\n01 {NEW.hex()}", "line 2: key id 1 is above 255 or named twice"),
    ],
)
def test_a_bad_key_file_is_refused_by_line(text: str, said: str) -> None:
    """
    A key file that cannot be read says which line, and never shows a key.
    """
    with pytest.raises(ValueError, match=said) as caught:
        parse_keys(text)
    assert OLD.hex()[:16] not in str(caught.value)


def test_keys_do_not_show_themselves() -> None:
    """
    Neither the repr nor the fingerprint of keys tells them; two services with other keys have other fingerprints.
    """
    assert OLD.hex()[:8] not in repr(KEYS) + KEYS.fingerprint()
    assert repr(OLD)[2:-1] not in repr(KEYS)
    assert Keys({1: NEW}, 1).fingerprint() != KEYS.fingerprint() != Keys({2: OLD}, 2).fingerprint()


def test_reasons_are_a_closed_list() -> None:
    """
    Every reason this module refuses a token with is on the list that labels a metric.
    """
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(token))) if isinstance(node, ast.Call)]
    raised = {ast.literal_eval(one.args[0]) for one in calls if getattr(one.func, "id", "") == "BadToken"}
    assert raised == {"malformed", "forged", "expired", "future"}
    assert raised <= set(token.REASONS)


def test_after_the_last_serial_a_new_issuer_begins() -> None:
    """
    A worker that has used up its serials goes on under another issuer, so no two tokens are alike.
    """
    one = Mint(KEYS, ISSUER)
    one.next_serial = 2**32 - 1
    last, first = (verify(KEYS, one.token(AD, DAY, NOON, 7)) for _ in range(2))
    assert (last.issuer, last.serial) == (ISSUER, 2**32 - 1)
    assert first.issuer != ISSUER
    assert (first.serial, one.issuer, one.next_serial) == (0, first.issuer, 1)


def test_issuers_that_come_after_differ_by_those_they_come_after() -> None:
    """
    Two workers that use up their serials do not meet at one next issuer, where their tokens would be alike.
    """
    after = []
    for issuer in (ISSUER, ISSUER[::-1]):
        one = Mint(KEYS, issuer)
        one.next_serial = 2**32 - 1
        one.token(AD, DAY, NOON, 7)
        after.append(verify(KEYS, one.token(AD, DAY, NOON, 7)).issuer)
    assert len({*after, ISSUER, ISSUER[::-1]}) == 4


def test_a_token_that_is_out_there_still_counts_after_an_upgrade() -> None:
    """
    Two versions make the same token of the same facts: the one below was written down once, and computed apart from
    this module. With another spelling, day key or fingerprint a roll-out would refuse the tokens of the hour before.
    """
    written_down = b"AQciUHC8wgFhYmNkZUYAAABicmVhZC0x1zh0SLRfB39LOWpN"
    said = Token(7, DAY, 29_539_440, ISSUER, 70, AD)
    assert mint(said) == written_down
    assert verify(KEYS, written_down) == said
    day_key = hashlib.blake2s(struct.pack("<H", DAY), key=OLD, person=b"adtokday").digest()
    body = base64.urlsafe_b64decode(written_down)[:24]
    assert base64.urlsafe_b64decode(written_down)[24:] == hashlib.blake2s(body, key=day_key, digest_size=12).digest()
    assert KEYS.fingerprint() == "a5e27edbd25d3d09"


def test_a_fingerprint_is_16_hex_digits() -> None:
    """
    What the services leave of themselves in the store is read back by this form alone.
    """
    assert re.fullmatch(r"[0-9a-f]{16}", KEYS.fingerprint())


def test_a_page_gets_one_serial_after_the_other() -> None:
    """
    The tokens of a page are those that would have been made one by one.
    """
    page, single = Mint(KEYS, ISSUER), Mint(KEYS, ISSUER)
    ads = [(AD, 7), (b"another", 3), (AD, 1)]
    single.token(AD, DAY, NOON, 7), page.token(AD, DAY, NOON, 7)
    assert page.tokens(ads, DAY, NOON) == (ISSUER, 1, [single.token(ad, DAY, NOON, allowed) for ad, allowed in ads])


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_page_that_needs_more_serials_than_are_left_has_one_issuer(left: int) -> None:
    """
    All tokens of a page name the same issuer, and none has a serial that another of that issuer has.
    """
    one = Mint(KEYS, ISSUER)
    one.next_serial = 2**32 - left
    issuer, first, tokens = one.tokens([(AD, 7)] * 3, DAY, NOON)
    read = [verify(KEYS, token) for token in tokens]
    assert [(token.issuer, token.serial) for token in read] == [(issuer, first + place) for place in range(3)]
    assert (issuer == ISSUER) == (left == 3)
    again = verify(KEYS, one.token(AD, DAY, NOON, 7))
    assert (again.issuer, again.serial) not in {(token.issuer, token.serial) for token in read}
