"""Files in, files out: reading frames, their times and colours, encoding and muxing. Needs PyAV."""
