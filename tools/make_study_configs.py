"""Write the option files and configs of the alignment study from iart_plugin/study.

python tools/make_study_configs.py           # write them
python tools/make_study_configs.py --check   # say which are out of date
"""

import argparse
import sys
from pathlib import Path

from iart_plugin.study.configs import all_files

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    stale = [
        (path, text)
        for path, text in all_files()
        if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        print(path)
        if not args.check:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(text, encoding="utf-8")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
