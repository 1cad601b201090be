"""The job side of the Pipes engine: what runs on a Spark driver that is not Dagster's process. Free of Dagster."""
