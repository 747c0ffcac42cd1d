"""`python -m vecraft` is the command `vecraft`."""

from vecraft.cli import main

raise SystemExit(main())
