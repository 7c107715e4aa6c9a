"""What another ad server keeps, turned into configuration files. Nothing is published and nothing is kept."""

from typing import Any

from starlette.responses import Response

from adserver.advanced_ads.kept import read_found
from adserver.advanced_ads.move import move
from adserver.answers import problem_response
from adserver.console.web import Call, read_json
from adserver.errors import BadExport


async def advanced_ads(call: Call) -> Response:
    """`wp adserver import` sends what Advanced Ads keeps, and writes the files that come back."""
    found = await read_json(call)
    try:
        moved = await call.apart(turn, found)  # how long it takes is the export's choice: one ad may be long
    except BadExport as error:
        return problem_response(422, f"The body {error}.")
    return call.json(moved)


def turn(found: Any) -> dict[str, Any]:
    """The files by name, and what is not as before. Raises BadExport."""
    moved = move(read_found(found))
    return {"files": moved.files, "left": [{"what": left.what, "why": left.why} for left in moved.left]}
