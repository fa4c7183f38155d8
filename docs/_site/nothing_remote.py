"""Warns, and so fails the strict build, when a page would load something from elsewhere."""

import logging
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

REMOTE = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
LOG = logging.getLogger("mkdocs.hooks.nothing_remote")


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Looks at a finished page."""
    for found in REMOTE.findall(output):
        LOG.warning("%s: %s is not on the site. Put the file into docs/.", page.file.src_uri, found)
    return output
