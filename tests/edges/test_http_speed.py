"""Answers given without a scope or a task, on real sockets: nobody can tell them from uvicorn's own."""

import socket
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from adserver.http_speed import AtOnce as Functions
from adserver.http_speed import FastHttpProtocol, Outbox
from tests.edges.test_http_limits import TIMEOUT_S, Peer, one_answer, serving, status

ASK = b"GET /once HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
SOON = b"GET /soon HTTP/1.1\r\nHost: a\r\n\r\n"
NOW = b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"


class AtOnce(FastHttpProtocol):
    """Knows one target and one kind of body, and counts how often it answered; `/soon` is told when `/now` is asked."""

    request_timeout_s = TIMEOUT_S
    collecting = frozenset((b"/collect",))
    answered = 0
    waiting: ClassVar[list[Callable[[int, bytes], None]]] = []
    outbox = Outbox()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_once = Functions(self._know, self._take, self._wait, self.outbox)

    def _know(self, target: bytes) -> tuple[int, bytes] | None:
        if target == b"/now":
            while self.waiting:
                self.waiting.pop(0)(200, b"content-length: 4\r\n\r\nsoon")
        elif target != b"/once":
            return None
        AtOnce.answered += 1
        return 200, b"content-length: 4\r\n\r\nonce"

    def _take(self, headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[int, bytes] | None:
        assert (b"host", b"a") in headers
        if body.startswith(b"long"):
            return None
        AtOnce.answered += 1
        return 200, b"content-length: %d\r\n\r\n%b" % (len(body), body)

    def _wait(
        self,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        client: tuple[str, int] | None,
        tell: Callable[[int, bytes], None],
    ) -> bool:
        if target == b"/told":  # and then something fails
            tell(200, b"content-length: 4\r\n\r\ntold")
            return False
        if target != b"/soon":
            return False
        assert (b"host", b"a") in headers
        assert client is not None
        assert client[0] == "127.0.0.1"
        AtOnce.answered += 1
        self.waiting.append(tell)
        return True


@pytest.fixture
def peer() -> Iterator[Peer]:
    AtOnce.answered = 0
    AtOnce.waiting.clear()
    AtOnce.outbox = Outbox()
    with serving(AtOnce, timeout_keep_alive=1) as peer:
        yield peer


def body(answer: bytes) -> bytes:
    """An answer's body; that of the test's application by its path."""
    found = answer.partition(b"\r\n\r\n")[2]
    return found if found == b"once" else found.split(b'"path": "')[1].split(b'"')[0]


def test_the_connection_stays_and_serves_what_comes(peer: Peer) -> None:
    """
    Answers at once and answers of the application take turns on one connection, each complete and with its date.
    """
    with peer.connect() as client:
        for turn in range(6):
            ask = ASK if turn < 3 else ASK.replace(b"Host", b"Connection: keep-alive\r\nHost")
            client.sendall(ask if turn % 2 == 0 else ask.replace(b"/once", b"/early"))
            answer = one_answer(client)
            assert (b"once" in answer) == (turn % 2 == 0)
            assert answer.lower().count(b"\r\ndate: ") == 1
    assert AtOnce.answered == 3
    assert peer.app.paths == ["/early"] * 3


def test_answers_keep_the_order_of_a_pipeline(peer: Peer) -> None:
    """
    What could be answered at once waits behind a slow request that came before it.
    """
    with peer.connect() as client:
        client.sendall(ASK + SLOW + ASK.replace(b"/once", b"/early") + ASK)
        assert [body(one_answer(client)) for _ in range(4)] == [b"once", b"/slow", b"/early", b"/once"]


def test_many_answers_that_leave_together_each_reach_their_asker(peer: Peer) -> None:
    """
    Forty connections whose requests arrive while the loop is busy are each sent their own answers, and no more.
    """
    clients = [peer.connect() for _ in range(40)]
    with peer.busy():
        for place, client in enumerate(clients):
            client.sendall(ASK * (1 + place % 3))
    for place, client in enumerate(clients):
        with client:
            assert [body(one_answer(client)) for _ in range(1 + place % 3)] == [b"once"] * (1 + place % 3)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""


def test_a_peer_that_has_no_more_to_say_still_reads_its_answer(peer: Peer) -> None:
    """
    The end of what is sent arrives with the request, before its answer has left.
    """
    with peer.connect() as client:
        with peer.busy():
            client.sendall(ASK)
            client.shutdown(socket.SHUT_WR)
        assert body(one_answer(client)) == b"once"
        assert client.recv(1) == b""


def test_an_answer_leaves_before_a_server_that_ends(peer: Peer) -> None:
    """
    The server closes its connections when it is told to stop, behind what it has said.
    """
    with peer.connect() as client:
        client.sendall(ASK)
        one_answer(client)
        with peer.busy():
            client.sendall(ASK)
            peer.loop.call_soon_threadsafe(peer.shut_down)
        assert body(one_answer(client)) == b"once"


@pytest.mark.parametrize(
    "request_",
    [
        ASK.replace(b"GET", b"HEAD"),
        ASK.replace(b"GET", b"DELETE"),
        ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        ASK.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n"),
        ASK.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"),
        ASK.replace(b"/once", b"/once?section=business"),
    ],
)
def test_whatever_is_not_plain_goes_the_long_way(peer: Peer, request_: bytes) -> None:
    """
    Another method, version or connection, a body or a query: the application sees the request.
    """
    with peer.connect() as client:
        client.sendall(request_)
        assert status(client.recv(65536)) == 200
    assert AtOnce.answered == 0
    assert peer.app.paths == ["/once"]


def post(body: bytes, *fields: bytes) -> bytes:
    head = [b"POST /collect HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def test_a_body_that_comes_whole_is_answered_at_once(peer: Peer) -> None:
    """
    Posts in one piece need no application, one after the other, with gets between them and an empty body too.
    """
    with peer.connect() as client:
        for content in (b"once", b"", b"x" * 9000, b"once"):
            client.sendall(post(content))
            assert one_answer(client).partition(b"\r\n\r\n")[2] == content
            client.sendall(ASK)
            assert body(one_answer(client)) == b"once"
    assert AtOnce.answered == 8
    assert peer.app.paths == []


@pytest.mark.parametrize("cut", [1, 40, -3])
def test_a_body_in_pieces_is_answered_all_the_same(peer: Peer, cut: int) -> None:
    """
    However a post is cut on its way, by the function or by the application, it is answered byte for byte, in order.
    """
    request = post(b"y" * 50)
    with peer.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(request[:cut])
        client.sendall(request[cut:] + post(b"once"))
        first, second = one_answer(client), one_answer(client)
    assert first.endswith(b"y" * 50) or b'"size": 50' in first
    assert second.endswith(b"once") or b'"size": 4,' in second
    assert AtOnce.answered + len(peer.app.paths) == 2


@pytest.mark.parametrize(
    "request_",
    [
        post(b"long way round"),
        post(b"once", b"Connection: close"),
        post(b"once", b"Expect: 100-continue"),
        post(b"once").replace(b"HTTP/1.1", b"HTTP/1.0"),
        post(b"once").replace(b"POST", b"PUT"),
        post(b"once").replace(b"/collect", b"/collect?x=1"),
        b"POST /collect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonce\r\n0\r\n\r\n",
    ],
)
def test_a_post_that_is_not_plain_goes_the_long_way(peer: Peer, request_: bytes) -> None:
    """
    What the function passes over, what ends the connection or is not plain: the application gets it whole.
    """
    with peer.connect() as client:
        client.sendall(request_)
        answer = client.recv(65536)
        while b'"size"' not in answer:
            answer += client.recv(65536)
    assert b'"size": 14' in answer or b'"size": 4' in answer
    assert AtOnce.answered == 0
    assert peer.app.paths == ["/collect"]


def test_a_large_body_goes_the_long_way(peer: Peer) -> None:
    """
    A body of more than one reading is the application's.
    """
    with peer.connect() as client:
        client.sendall(post(b"z" * 300_000))
        assert b'"size": 300000' in one_answer(client)
        client.sendall(ASK)
        assert body(one_answer(client)) == b"once"


def test_a_body_cut_off_is_given_up(peer: Peer) -> None:
    """
    A body that never ends has its time limit, whoever was to have it.
    """
    assert peer.says(post(b"once")[:-2]).startswith(b"HTTP/1.1 408")
    assert peer.refused == ["timeout"]


def test_an_idle_connection_is_closed_as_any_other(peer: Peer) -> None:
    """
    A connection that has only ever been answered at once is closed when it has been idle for the keep-alive time.
    """
    with peer.connect() as client:
        client.sendall(ASK)
        assert one_answer(client).endswith(b"once")
        assert client.recv(1) == b""


def test_a_request_cut_off_behind_an_answer_is_given_up(peer: Peer) -> None:
    """
    Half a request behind one answered at once has its time limit as it would have anywhere.
    """
    assert peer.says(ASK + ASK[:20]).partition(b"once")[2].startswith(b"HTTP/1.1 408")
    assert peer.refused == ["timeout"]


def test_a_refused_request_ends_the_connection(peer: Peer) -> None:
    """
    The limits hold in front of an answer at once and behind it.
    """
    assert status(peer.says(ASK.replace(b"Host: a", b"Host: a\r\nHost: b"))) == 400
    answers = peer.says(ASK + b"GET /\0 HTTP/1.1\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200") == answers.count(b"HTTP/1.1 400") == 1
    assert AtOnce.answered == 1


def tell_all(peer: Peer, expected: int) -> None:
    """Let every answer that is still to come be given, once *expected* of them are waited for."""
    while len(AtOnce.waiting) < expected:
        with peer.connect() as other:
            other.sendall(ASK)
            one_answer(other)
    with peer.connect() as other:
        other.sendall(NOW)
        one_answer(other)


def test_what_is_told_later_keeps_its_place(peer: Peer) -> None:
    """
    An answer that comes a moment later holds back those behind it, whoever gives them; then the connection goes on.
    """
    with peer.connect() as client:
        for _ in range(2):
            client.sendall(SOON + ASK + ASK.replace(b"/once", b"/early") + SOON)
            tell_all(peer, 1)
            answers = [one_answer(client) for _ in range(3)]
            assert answers[0].endswith(b"\r\n\r\nsoon")
            assert answers[0].lower().count(b"\r\ndate: ") == 1
            assert [body(answer) for answer in answers[1:]] == [b"/once", b"/early"]
            assert body(one_answer(client)) == b"/soon"  # behind another it is the application's
        client.sendall(SOON)
        tell_all(peer, 1)
        assert one_answer(client).endswith(b"soon")


def test_a_reader_who_leaves_before_the_answer_harms_nobody(peer: Peer) -> None:
    """
    An answer told to a closed connection is dropped, and the next reader's comes.
    """
    with peer.connect() as client:
        client.sendall(SOON)
        stays = peer.connect()
        stays.sendall(SOON)
        while len(AtOnce.waiting) < 2:
            with peer.connect() as other:
                other.sendall(ASK)
                one_answer(other)
    with stays as client:
        tell_all(peer, 2)
        assert one_answer(client).endswith(b"soon")


def test_a_connection_that_waits_for_its_answer_is_not_idle(peer: Peer) -> None:
    """
    It stays open while others, idle since after it asked, are closed.
    """
    with peer.connect() as client, peer.connect() as idle:
        client.sendall(ASK)
        one_answer(client)
        client.sendall(SOON)
        idle.sendall(ASK)
        one_answer(idle)
        assert idle.recv(1) == b""
        tell_all(peer, 1)
        assert one_answer(client).endswith(b"soon")
        assert client.recv(1) == b""  # and it is idle from then on


def test_an_answer_that_is_waited_for_ends_a_connection_that_broke_the_rules_meanwhile(peer: Peer) -> None:
    """
    What cannot be understood behind it is not answered; the answer says that the connection ends.
    """
    with peer.connect() as client:
        client.sendall(SOON + b"GET /\0 HTTP/1.1\r\n\r\n")
        tell_all(peer, 1)
        answer = one_answer(client)
        assert b"\r\nconnection: close\r\n" in answer.lower()
        assert answer.endswith(b"soon")
        assert client.recv(1) == b""


def test_what_was_told_is_not_answered_again(peer: Peer) -> None:
    """
    A function that gives an answer and fails behind it has answered: the next answer belongs to the next request.
    """
    with peer.connect() as client:
        client.sendall(SOON.replace(b"/soon", b"/told") + ASK)
        assert one_answer(client).endswith(b"told")
        assert body(one_answer(client)) == b"once"
    assert peer.app.paths == []
