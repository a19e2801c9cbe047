"""Makes `python -m allaprima` equivalent to the command `allaprima`."""

from allaprima.cli.main import main

main()
