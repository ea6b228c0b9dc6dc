"""Reads frames with their times and colours, encodes frames, and muxes files. Needs PyAV."""
