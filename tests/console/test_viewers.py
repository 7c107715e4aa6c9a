"""What a viewer sees of what only others may change: all of it, to read, without a field or a button."""

import pytest

from tests.console.desks import Desk
from tests.console.forms import forms_of

PAGES = {
    "/console/line-items/molenkorst-daily": ["3,000 impressions a day", "Molenkorst"],
    "/console/line-items/kadefiets-first-box": ["Kadefiets"],
    "/console/creatives/zoutmond-hall-listing": ["HTML"],
    "/console/creatives/kadefiets-electric-160x600": ["160 × 600", "Alternative text"],
    "/console/advertisers/kadefiets": ["Kadefiets"],
    "/console/slots/889990": ["889990"],
}


@pytest.mark.parametrize("path", PAGES)
def test_a_viewer_reads_and_is_offered_nothing_else(desk: Desk, path: str) -> None:
    """
    No form that ends in a refusal: no field to fill, no file to choose, no button to save.
    """
    page = desk.browser("viewer").get(path)
    assert page.status_code == 200
    assert not [one for one in forms_of(page.text) if one.method == "POST"]
    assert 'type="file"' not in page.text
    assert "Save to my draft" not in page.text
    for text in PAGES[path]:
        assert text in page.text
    assert [one for one in forms_of(desk.browser("sales").get(path).text) if one.method == "POST"]
