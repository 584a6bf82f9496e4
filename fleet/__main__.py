"""`python -m fleet` is the `fleet` command."""

from fleet.cli.main import main

if __name__ == "__main__":
    main()
