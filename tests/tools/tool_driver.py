"""Tools run in this process as a user would call them."""

from __future__ import annotations

import contextlib
import io

from tests.basicsr.basicsr_driver import load_tool


def tool(name: str, *arguments: object, fails: bool = False) -> str:
    """Run a tool's ``main`` and return what it printed or what it failed with."""
    printed, code = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            code = load_tool(name).main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    assert bool(code) == fails, (code, printed.getvalue())
    return f"{printed.getvalue()}{code}"
