"""Names of models and versions, which become paths."""

import re

from qtorch.deploy.server.protocol.errors import RequestError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


def is_name(name: str) -> bool:
    """Whether a model may have this name: letters, digits, dots, hyphens and underscores, a letter or digit first."""
    return _NAME.fullmatch(name) is not None


def is_version(version: str) -> bool:
    """Whether it is a version: a positive whole number without leading zeros."""
    return _VERSION.fullmatch(version) is not None


def checked_name(name: str) -> str:
    """The name of a model itself.

    Raises:
        RequestError: 404, it can be no model's.
    """
    if not is_name(name):
        raise RequestError(
            404,
            f"no model is named {_shown(name)}: names are letters, digits, dots, hyphens and underscores, with a "
            "letter or digit first. GET /v2 and POST /v2/repository/index list what there is.",
        )
    return name


def checked_version(version: str | None) -> str | None:
    """The version itself; None and "" are the model's default.

    Raises:
        RequestError: 404, it can be no version's.
    """
    if version is None or version == "":
        return None
    if not is_version(version):
        raise RequestError(404, f"no version is {_shown(version)}: versions are whole numbers from 1, such as 3.")
    return version


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
