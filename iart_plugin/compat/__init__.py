"""Repairs both frameworks while they run, without editing any installed file.

:mod:`iart_plugin.compat.basicsr` repairs BasicSR, :mod:`iart_plugin.compat.mmagic` repairs MMagic
and MMEngine. Each repair is one :class:`~iart_plugin.compat.mend.Mend`. Importing these modules
changes nothing. The adapter of a framework applies its repairs.
"""
