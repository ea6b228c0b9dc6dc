"""Upscale a video by 4: ``tools/upscale_video.py INPUT -o OUTPUT …``; see docs/upscale.md."""

import sys

from iart_plugin.commands.upscale.cli import main

if __name__ == "__main__":
    sys.exit(main())
