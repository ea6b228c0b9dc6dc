"""Repairs of the two frameworks, made while they run and without editing an installed file.

:mod:`iart_plugin.compat.basicsr` repairs BasicSR, :mod:`iart_plugin.compat.mmagic` repairs MMagic
and MMEngine. Each repair is one :class:`~iart_plugin.compat.mend.Mend`. Importing these modules
changes nothing: an adapter applies the mends of its framework.
"""
