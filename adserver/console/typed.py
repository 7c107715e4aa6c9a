"""A form that came after its session had ended: what was typed goes back to the browser, which sends it again.

Nothing of it is kept here. It stands on a page of ours, whose button sends it once somebody is signed in, so no other
site can have it sent.
"""

from msgspec import Struct
from starlette.datastructures import FormData, UploadFile


class Typed(Struct, frozen=True):
    """The fields to send to *path* again; *files* were chosen with them, and have to be chosen again."""

    path: str
    fields: tuple[tuple[str, str], ...]
    files: bool


def read_typed(form: FormData, path: str, own: tuple[str, ...]) -> Typed | None:
    """None where nothing was typed besides our *own* fields, and of a form with a password: no page repeats that."""
    pairs = form.multi_items()
    fields = tuple((name, value) for name, value in pairs if isinstance(value, str) and name != "csrf")
    if any("password" in name for name, _ in fields) or not any(value and name not in own for name, value in fields):
        return None
    return Typed(path, fields, any(isinstance(value, UploadFile) and value.filename for _, value in pairs))
