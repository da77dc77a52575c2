"""`python -m mimik`, and the `mimik` command."""

import sys


def main() -> None:
    """Runs the command line; an interruption while it is loading ends quietly too."""
    try:
        from mimik.app import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
