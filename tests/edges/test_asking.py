"""What the commands that ask take: numbers within bounds, said in words."""

import pytest

from adserver.cli import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("forecast --days 0", "'0': expected 1 to 400 days"),
        ("forecast --days 401", "'401': expected 1 to 400 days"),
        ("forecast --days 3000000", "'3000000': expected 1 to 400 days"),
        ("forecast --days 1" + "0" * 20, "expected 1 to 400 days"),
        ("forecast --days 1" + "0" * 9_999, "expected 1 to 400 days"),
        ("forecast --days soon", "'soon': expected 1 to 400 days"),
        ("forecast --remedies-within -1", "'-1': expected 0 to 86,400 seconds"),
        ("simulate --days 401", "expected 1 to 400 days"),
        ("simulate --requests 1", "'1': expected 100 to 100,000,000 requests of each slot and day"),
        ("simulate --workers 0", "'0': expected 1 to 1,000 workers"),
    ],
)
def test_numbers_have_bounds(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    What would run without end, or divide by nothing, is refused with what was expected.
    """
    with pytest.raises(SystemExit) as exit_:
        main(arguments.split())
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err
