"""When a service that failed is asked again, and what is shown meanwhile."""

from adserver.client.outage import Kept, Outage


def test_after_a_failure_nobody_calls_for_the_pause_and_then_one_does() -> None:
    """
    One call tries when the pause is over; the others wait for what it finds.
    """
    outage = Outage(pause_s=30)
    assert outage.may_call(0)
    assert outage.failed(1)

    assert not outage.may_call(1.1)
    assert not outage.may_call(30.9)
    assert [outage.may_call(31), outage.may_call(31), outage.may_call(40)] == [True, False, False]
    assert not outage.failed(41), "an outage is told once"
    assert not outage.may_call(70)
    assert outage.may_call(71)
    assert outage.answered(71) == 1
    assert [outage.may_call(72), outage.may_call(72)] == [True, True]
    assert outage.failed(73), "the next outage is told again"


def test_an_answer_from_before_the_failure_ends_no_outage() -> None:
    """
    Of two calls at once, the one that was lucky does not send everybody after it into the same failure.
    """
    outage = Outage(pause_s=30)
    outage.failed(5)
    assert outage.answered(began=4) is None
    assert not outage.may_call(6)


def test_a_try_that_was_called_off_leaves_the_next_one_free() -> None:
    """
    A reader who went away does not keep the outage going for ever.
    """
    outage = Outage(pause_s=30)
    outage.failed(0)
    assert outage.may_call(30)
    outage.left_open()
    assert outage.may_call(30)


def test_last_good_answers_are_kept_for_their_time_and_for_the_latest_pages() -> None:
    """
    What may not be shown any more is not, and old pages make room.
    """
    kept = Kept(most=2)
    kept.keep("a", ["A"], until=10)
    kept.keep("b", ["B"], until=10)
    kept.keep("a", ["A2"], until=20)
    kept.keep("c", ["C"], until=20)
    assert (kept.find("a", 15), kept.find("b", 5), kept.find("c", 15)) == (["A2"], (), ["C"])
    assert kept.find("a", 20) == ()
