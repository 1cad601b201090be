"""The dry run: what is wrong with every pipe, found on empty frames before any run. Free of Dagster but for job.py."""
