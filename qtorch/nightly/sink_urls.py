"""The URLs of sinks: which kind each is, and secrets that stay out of them."""

import os
import re
from urllib.parse import urlsplit

import fsspec

from qtorch.errors import ArgumentError


def is_database(url: str) -> bool:
    """Whether a URL is a database's and not a place of files."""
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme not in {*fsspec.available_protocols(), "viewfs"}


def check_sink(url: str) -> None:
    """Refuses a URL that has a password in it, since manifests hold the configuration.

    Raises:
        ValueError: it has.
    """
    password = urlsplit(url).password if "://" in url else None
    if password is not None and not re.fullmatch(r"\$\{\w+\}", password):
        raise ArgumentError(
            f"sinks: the URL of {url.rpartition('@')[2]} has a password in it. Write ${{NAME}} instead, which is taken "
            "from the environment, or leave it to the driver's own ways (PGPASSWORD, ~/.pgpass, AWS_PROFILE)."
        )


def filled(url: str) -> str:
    """With what the environment says in the place of ``${NAME}``.

    Raises:
        ValueError: it does not say it.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ArgumentError(f"sinks: {url} asks for ${{{found[1]}}}, which the environment does not have.")
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)\}", value, url)
