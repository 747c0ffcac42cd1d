"""`vecraft` with a clock that is off: python tests/faults/nodes/offset_clock.py OFFSET_MS serve …"""

import sys

from vecraft import cli, roles

if __name__ == "__main__":
    offset_ms = int(sys.argv[1])
    right = roles.wall_clock_ms
    roles.wall_clock_ms = lambda: right() + offset_ms
    sys.exit(cli.main(sys.argv[2:]))
