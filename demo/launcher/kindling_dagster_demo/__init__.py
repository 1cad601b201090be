"""The `demo` command."""


def main() -> None:
    """Start the demo."""
    raise SystemExit("not built yet")
