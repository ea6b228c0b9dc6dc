r"""Lets BasicSR 1.4.2's setup.py read its version on Python 3.13 and newer.

It calls ``exec`` in a function and then looks for the new name in ``locals()``, where Python 3.13
(PEP 667) no longer puts it. Here an ``exec`` without namespaces writes into its caller's names
again. Python reads this file when it starts with this folder in PYTHONPATH, which the build of
BasicSR's wheel alone does:

    PYTHONPATH=$PWD/requirements/python-3.13 \
        pip install --no-deps --no-build-isolation basicsr==1.4.2

The wheel's name is ``py3-none-any``: one that was built with an older Python installs as well.
"""

import builtins
import sys

_exec = builtins.exec


def exec_as_before(code, *namespaces, **options):
    """Runs ``exec``; without namespaces, in those of the caller's frame."""
    if not namespaces:
        caller = sys._getframe(1)
        namespaces = (caller.f_globals, caller.f_locals)
    return _exec(code, *namespaces, **options)


if sys.version_info >= (3, 13):
    builtins.exec = exec_as_before
