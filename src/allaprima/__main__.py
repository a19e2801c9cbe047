"""`python -m allaprima` is `allaprima`."""

from allaprima.cli.main import main

main()
