"""What Ray reads of the environment."""

import os
import secrets


def guard_local_ray() -> None:
    """Makes a Ray that this process starts one of this process alone; to be called before Ray is imported.

    Ray runs whatever it is sent, so only who knows this may send; and only if it can be no part of a cluster, which
    this variable says on all systems, does it listen at 127.0.0.1 alone.
    """
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def tell_nobody() -> None:
    """Sends no statistics of usage, unless the user has said otherwise; to be called before Ray is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
