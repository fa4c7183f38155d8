"""Charts of the night's page: two widths, as data URIs."""

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE, NARROW = 9.6, 4.3  # inches: the widths at which a chart is drawn for desktops and for phones


def date_axis(ax: Any, width: float) -> None:
    """Few ticks with short dates, fewer on a narrow chart."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=9 if width > 6 else 5)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def responsive(draw: Callable[[float], "Figure"]) -> dict[str, str]:
    """A chart drawn at both widths."""
    return {"wide": svg(draw(WIDE)), "narrow": svg(draw(NARROW))}


def svg(figure: "Figure") -> str:
    """A figure as a data URI."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue().encode()).decode()
