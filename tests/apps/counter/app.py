"""An app that initialises Kindling itself and then registers what it is made of."""

from pathlib import Path

from kindling.bootstrap import initialize_framework

HERE = Path(__file__).parent


def initialize(env="local"):
    initialize_framework(
        {"platform": "standalone", "environment": env, "config_files": [str(HERE / "config" / "base.yaml")]}
    )
    register_all()


def register_all():
    from counter import tables, work  # noqa: F401


if __name__ == "__main__":
    initialize()
