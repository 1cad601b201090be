"""The DAG engine: graph, strategies, plans and the executor. Free of Dagster."""
