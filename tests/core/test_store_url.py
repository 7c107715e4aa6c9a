"""The store's URL: what each form says, and a sentence without the password for each slip."""

import re

import pytest

from adserver.store_url import Form, parse_store_url


def test_a_primary_behind_sentinels() -> None:
    """
    Two logins, several hosts of which one is IPv6, a database; what is escaped in a password is not in the login.
    """
    found = parse_store_url(
        "rediss+sentinel://us%3Aer:p%40ss%2F@s1.example:1,[2001:db8::1]:2,s3/my-primary/7"
        "?sentinel_username=su&sentinel_password=sp%26&ssl_ca_certs=/ca.pem"
    )

    assert found.form is Form.SENTINEL
    assert found.nodes == (("s1.example", 1), ("2001:db8::1", 2), ("s3", 26379))
    assert found.name == "my-primary"
    assert found.login == {
        "ssl": True, "ssl_ca_certs": "/ca.pem", "username": "us:er", "password": "p@ss/", "db": 7,
    }  # fmt: skip
    assert found.sentinel_login == {"ssl": True, "ssl_ca_certs": "/ca.pem", "username": "su", "password": "sp&"}
    assert found.is_private
    assert "p@ss" not in repr(found)


def test_a_cluster() -> None:
    """
    A password without a user, the usual port, no database.
    """
    found = parse_store_url("redis+cluster://:secret@c1,c2:7001/")

    assert (found.form, found.nodes) == (Form.CLUSTER, (("c1", 6379), ("c2", 7001)))
    assert found.login == {"password": "secret"}
    assert found.sentinel_login == {}
    assert not found.is_private  # without TLS


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("redis+cluster://127.0.0.1:1,localhost:2,[::1]:3", True),
        ("redis+cluster://127.0.0.1:1,10.0.0.1", False),
        ("redis+sentinel://127.0.0.1/m", True),
        ("redis+sentinel://:p@10.0.0.1/m", False),
        ("rediss+sentinel://10.0.0.1/m", False),
        ("rediss+sentinel://10.0.0.1/m?sentinel_password=p", False),
        ("rediss+cluster://:p@10.0.0.1", True),
    ],
)
def test_private_is_this_machine_or_a_password_with_tls(url: str, *, private: bool) -> None:
    """
    All hosts must be local; the sentinels' own password does not protect the servers.
    """
    assert parse_store_url(url).is_private is private


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost", "expected redis://"),
        ("sentinel://h/m", "redis+sentinel://"),
        ("REDIS+CLUSTER://h", "expected redis://"),
        ("redis://h1,h2", "several servers"),
        ("redis+sentinel://h1:26379", "the name the sentinels know it by"),
        ("redis+sentinel://h1/", "the name the sentinels know it by"),
        ("redis+sentinel://h1/my master", "the name the sentinels know it by"),
        ("redis+sentinel://h1/m/x", "a number"),
        ("redis+sentinel://h1/m/0/1", "a number"),
        ("redis+sentinel://h1/m/٣", "a number"),
        ("redis+sentinel://:0/m", "expected HOST:PORT"),
        ("redis+sentinel:///m", "expected HOST:PORT"),
        ("redis+cluster://h1,,h2", "expected HOST:PORT"),
        ("redis+cluster://h1:65536", "number 1,"),
        ("redis+cluster://h1:٣", "expected HOST:PORT"),
        ("redis+cluster://h1/3", "database 0 only"),
        ("redis+cluster://h1?db=1", "the option 'db'"),
        ("redis+cluster://h1?sentinel_password=x", "the option 'sentinel_password'"),
        ("redis+sentinel://h1/m?decode_responses=1", "the option 'decode_responses'"),
        ("redis+sentinel://h1/m?ssl_ca_certs=/x", "rediss+sentinel://"),
        ("redis+cluster://u:sesame/x@h1", "%2F"),
        ("redis+cluster://u:sesame#x@h1", "%23"),
        ("redis+cluster://u:sesame?x@h1", "%3F"),
        ("redis+cluster://u:sesame@x@h1", "%40"),
        ("redis+cluster://u:sesame", "an '@' between"),
        ("redis+cluster://u:sesame/x", "an '@' between"),
        ("redis+cluster://u:sesame@h1#x", "%23"),
    ],
)
def test_a_slip_is_told_without_the_password(url: str, says: str) -> None:
    """
    What is wrong, what was expected.
    """
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        parse_store_url(url)
    assert "sesame" not in str(raised.value)
