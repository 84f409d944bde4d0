"""``python -m pyrope.http.metrics --markdown`` prints the page of all metrics."""

from __future__ import annotations

import argparse
import sys

from pyrope.http.metrics.page import markdown

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pyrope.http.metrics", description=__doc__)
    parser.add_argument("--markdown", action="store_true", required=True, help="print the page")
    parser.parse_args()
    sys.stdout.write(markdown())
