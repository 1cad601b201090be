"""``spark-submit … kindling_job.py`` and ``python -m kindling_dagster.remote``: an order of the Pipes engine."""

from __future__ import annotations

import sys

from dagster_pipes import PipesCliArgsParamsLoader, PipesEnvVarParamsLoader, open_dagster_pipes

from kindling_dagster.remote.job import run_job


def main() -> None:
    """Open Pipes by the command line's parameters, else by the environment's, and run the order."""
    by_arguments = PipesCliArgsParamsLoader()  # type: ignore[no-untyped-call]
    loader = by_arguments if by_arguments.is_dagster_pipes_process() else PipesEnvVarParamsLoader()  # type: ignore[no-untyped-call]
    with open_dagster_pipes(params_loader=loader) as pipes:
        carried_out = run_job(pipes)
    sys.exit(0 if carried_out else 1)


if __name__ == "__main__":
    main()
