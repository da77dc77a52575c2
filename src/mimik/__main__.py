"""`python -m mimik`, and the `mimik` command."""

import sys


def main() -> None:
    """Run the command line; an interruption while it is loading also exits quietly."""
    try:
        from mimik.app import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
