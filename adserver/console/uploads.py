"""An image that came with a form: looked at, and kept while the rest of the form is put right.

A browser forgets a chosen file when the form is shown again. So what has passed its own checks is kept beside the
drafted images, and the form remembers its name (field `picture`) and what was said of it (`picture_notes`).
"""

import re
from collections.abc import Collection

from adserver.config_files import measure_image
from adserver.console.desk import hold_picture
from adserver.console.pictures import Kept, take
from adserver.console.web import Call
from adserver.documents import Document
from adserver.errors import BadPicture
from adserver.model import Creative, Kind, Size
from adserver.versions import read_asset

_NAME = re.compile(r"[0-9a-f]{32}\.(?:png|jpg|gif|webp|avif)", re.ASCII)
_MOST_NOTES = 8


def sizes_of(document: Document) -> list[Size]:
    return [size for slot in document.slots for size in slot.sizes]


async def read_upload(call: Call, sizes: Collection[Size]) -> Kept | None:
    """The image that came with the form, or that an earlier sending of it has left here.

    Raises BadPicture; without *sizes* any size will do.
    """
    upload = await call.file("image")
    if upload is not None:
        picture = await call.aside(take, upload[1], upload[0], sizes)
        await hold_picture(call.store, picture)
        await call.note("uploads", picture.name)
        return picture.kept
    name = call.text("picture")
    if not _NAME.fullmatch(name):
        return None
    data = await read_asset(call.store, name)
    if data is None:
        raise BadPicture("The image is not kept any more; choose it again")
    found = await call.aside(measure_image, Creative(id="upload", advertiser="upload", kind=Kind.IMAGE), data)
    still = found.still.name if found.still else None
    return Kept(name, found.size, still, tuple(call.text("picture_notes").splitlines()[:_MOST_NOTES]))
