"""The repository's index of several workers."""

from collections.abc import Sequence

from qtorch.deploy.server.answers import WorkerState


def merged_index(states: Sequence[WorkerState]) -> dict[tuple[str, str], dict[str, str]]:
    """Name, version, state and reason of every version; READY is what all workers have ready.

    Args:
        states: of the workers.

    Example:
        >>> from qtorch.deploy.server.answers import VersionState
        >>> one = VersionState("spx", "1", "READY", "")
        >>> merged_index([WorkerState([one], "", 7), WorkerState([], "", 8)])
        {('spx', '1'): {'name': 'spx', 'version': '1', 'state': 'LOADING', 'reason': '1 of 2 workers have it'}}
    """
    merged: dict[tuple[str, str], dict[str, str]] = {}
    have: dict[tuple[str, str], int] = {}
    for state in states:
        for each in state.index:
            key = each.name, each.version
            have[key] = have.get(key, 0) + 1
            if key not in merged or merged[key]["state"] == "READY":
                merged[key] = {"name": each.name, "version": each.version, "state": each.state, "reason": each.reason}
    for key, told in merged.items():
        if have[key] < len(states) and told["state"] == "READY":
            told |= {"state": "LOADING", "reason": f"{have[key]} of {len(states)} workers have it"}
    return dict(sorted(merged.items(), key=lambda each: (each[0][0], int(each[0][1]))))
