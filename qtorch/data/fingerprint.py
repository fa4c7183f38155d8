"""What tells one panel from another, in a few characters."""

import hashlib

from qtorch.data.features.feature import BLOCK
from qtorch.data.panel import Panel
from qtorch.data.store import release


def fingerprint(panel: Panel) -> str:
    """A hash of all that features and forecasts are made of; panels that differ in any of it have others."""
    digest = hashlib.blake2b(repr((panel.assets, panel.fields, panel.exchanges)).encode(), digest_size=32)
    digest.update(panel.dates.asi8.tobytes())
    digest.update(panel.as_of.asi8.tobytes())
    for tensor in (panel.exchange_is_session, panel.exchange_next_day, panel.exchange_close):
        digest.update(tensor.cpu().numpy().tobytes())
    for n in range(0, len(panel.assets), BLOCK):
        block = slice(n, n + BLOCK)
        for tensor in (panel.values[:, block], panel.state[:, block], panel.session_day[:, block]):
            digest.update(tensor.nan_to_num().cpu().numpy().tobytes())
        release()
    return digest.hexdigest()
