"""On the path of a test's subprocess only: makes the stock ``basicsr`` importable."""

import iart_plugin.compat.startup  # noqa: F401
