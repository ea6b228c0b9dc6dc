"""Fits the pages to the site: a link to a file outside of docs/ is shown as its text alone.

On the project's page such links lead to the file. The site holds the pages only, and a link that
leads nowhere within docs/ still fails the build.
"""

import re

_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by MkDocs for every page."""
    return _OUTSIDE.sub(r"\1", markdown)
