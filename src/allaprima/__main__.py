"""`python -m allaprima` is `allaprima`."""

from allaprima.cli import main

main()
