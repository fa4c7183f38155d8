"""Who may ask: tokens, of which a request must bear one."""

import hmac
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from qtorch.deploy.server.config import LOCAL
from qtorch.errors import ArgumentError

_SHORTEST = 16  # characters


class Tokens:
    """Tokens that are accepted; only their digests are kept.

    Args:
        tokens: given one by one, such as by the environment.
        file: with one a line; empty lines and those that begin with # are left out. It is read again when it changes,
            so that a new token can be added before the old one is taken away.

    Raises:
        ValueError: a token is too short or not of printable ASCII characters, or the file holds none or cannot be read.

    Example:
        >>> tokens = Tokens(["correct-horse-battery"])
        >>> tokens.accepts("Bearer correct-horse-battery"), tokens.accepts("Bearer correct"), tokens.accepts(None)
        (True, False, False)
    """

    def __init__(self, tokens: Iterable[str] = (), file: str | Path | None = None) -> None:
        self.file = None if file is None else Path(file)
        self._given = [_digest(_checked(token, "a token of the environment")) for token in tokens]
        self._read: list[bytes] = []
        self._state: tuple[int, int] | None = None
        self.refresh()

    def __bool__(self) -> bool:
        """Whether there are any; without, everyone is accepted."""
        return bool(self._given or self._read)

    def refresh(self) -> bool:
        """Reads the file again if it has changed, and says whether it did; what was accepted stays so if it cannot be.

        Raises:
            ValueError: the file holds no token or one that cannot be, or cannot be read.
        """
        if self.file is None:
            return False
        try:
            found = self.file.stat()
            state = (found.st_mtime_ns, found.st_size)
            if state == self._state:
                return False
            lines = [line.strip() for line in self.file.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ArgumentError(f"{self.file}: the tokens cannot be read ({type(error).__name__}).") from error
        tokens = [line for line in lines if line and not line.startswith("#")]
        if not tokens:
            raise ArgumentError(f"{self.file}: it holds no token; write one a line.")
        self._read = [_digest(_checked(token, str(self.file))) for token in tokens]
        self._state = state
        return True

    def accepts(self, authorization: str | None) -> bool:
        """Whether a header ``Authorization: Bearer TOKEN`` bears one; the time it takes tells nothing of them."""
        if not self:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        given = _digest(token.strip())
        # Every digest is compared, and each in constant time.
        matches = sum(hmac.compare_digest(given, each) for each in self._given + self._read)
        return scheme.lower() == "bearer" and matches > 0


def own_page(host: str | None, origin: str | None, local: bool) -> bool:
    """Whether a request is of no page of a browser, or of one that came from the server's own address.

    Args:
        host: the header of HTTP: for whom the request is.
        origin: the header of HTTP, which a browser sends with what a page posts; None for other clients.
        local: the server is for this machine alone, so only its own names can be meant.

    Example:
        >>> own_page("127.0.0.1:8000", None, local=True)
        True
        >>> own_page("127.0.0.1:8000", "https://evil.example", local=True)
        False
        >>> own_page("evil.example:8000", None, local=True)  # a name that was made to mean this machine
        False
    """
    try:
        named = urlsplit(f"//{host or ''}")
        if local and host and named.hostname not in LOCAL:
            return False
        return origin is None or urlsplit(origin).netloc.lower() == named.netloc.lower() != ""
    except ValueError:  # brackets around what is no address
        return False


def _checked(token: str, where: str) -> str:
    if len(token) < _SHORTEST or not all("!" <= character <= "~" for character in token):
        raise ArgumentError(
            f"{where}: a token is at least {_SHORTEST} printable ASCII characters without spaces; "
            "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'."
        )
    return token


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
