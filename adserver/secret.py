"""The signing keys and the staff token on disk: read, or made at the first start."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from adserver.errors import AdserverError
from adserver.settings import Settings
from adserver.token import Keys, parse_keys

_SHORTEST_TOKEN = 16


class BadSecret(AdserverError):
    """The secret file cannot be used."""


def read_keys(settings: Settings) -> Keys:
    """The keys of ADSERVER_SECRET_FILE, else of DATA_DIR/keys, which is created with mode 0600. Raises BadSecret."""
    path = Path(settings.secret_file) if settings.secret_file else settings.data / "keys"
    try:
        if not settings.secret_file:
            _create_once(path, f"1 {secrets.token_hex(32)}")
        if path.stat().st_mode & 0o007:
            raise BadSecret(f"{path} can be read or written by everybody on this machine; run: chmod 600 {path}")
        return parse_keys(path.read_text(encoding="ascii"))
    except OSError as error:
        raise BadSecret(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadSecret(f"{path}: {error}") from None


def read_private(path: str) -> str:
    """A secret somebody else wrote into a file that not everybody may read. Raises BadSecret."""
    file = Path(path)
    try:
        if file.stat().st_mode & 0o007:
            raise BadSecret(f"{file} can be read or written by everybody on this machine; run: chmod 600 {file}")
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise BadSecret(f"{file} cannot be read: {error.strerror}") from error
    except ValueError:
        raise BadSecret(f"{file}: expected plain ASCII") from None


def staff_token_path(settings: Settings) -> Path:
    return Path(settings.staff_token_file) if settings.staff_token_file else settings.data / "staff-token"


def read_staff_token(settings: Settings, keys: Keys) -> str:
    """The token that previews need: of ADSERVER_STAFF_TOKEN_FILE, else one that follows from the signing keys, so that
    all who share these have the same; it is written to DATA_DIR/staff-token for people to read. Raises BadSecret.
    """
    path = staff_token_path(settings)
    try:
        if not settings.staff_token_file:
            token = keys.salt(b"staff").hex()[:32]
            if not path.exists() or path.read_text(encoding="ascii", errors="replace").strip() != token:
                path.unlink(missing_ok=True)
                _create_once(path, token)
            return token
    except OSError as error:
        raise BadSecret(f"{path} cannot be read: {error.strerror}") from error
    token = read_private(str(path))
    if len(token) < _SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise BadSecret(f"{path}: expected a token of at least {_SHORTEST_TOKEN} characters without blanks")
    return token


def _create_once(path: Path, text: str) -> None:
    """Write *text* unless the file is there; of two processes that try at once, one wins and both read its text."""
    if path.exists():
        return
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # tokens signed with a key that a power cut takes back would all be forgeries
    finally:
        os.close(directory)
