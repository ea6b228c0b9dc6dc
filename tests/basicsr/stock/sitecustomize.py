"""On the path of a test's subprocess only: makes the stock ``basicsr`` importable."""

from iart_plugin import compat

compat.provide_functional_tensor()
