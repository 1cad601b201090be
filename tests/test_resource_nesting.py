"""Resources inside resources, as Dagster nests them: given, shared, set up first, configured at launch."""

from typing import Any

from dagster import (
    AssetExecutionContext,
    ConfigurableResource,
    DagsterInstance,
    InitResourceContext,
    PipesClient,
    asset,
    materialize,
)
from dagster_pyspark import LazyPySparkResource
from manifests import manifest, pipe
from pydantic import PrivateAttr

from kindling_dagster import (
    KindlingIOManager,
    KindlingProject,
    KindlingResource,
    KindlingSubmitClient,
    PipesEngine,
    WarmEngine,
)


class Account(ConfigurableResource[Any]):
    """Something that a client needs, with a life of its own."""

    name: str
    _ready: str = PrivateAttr(default="")

    def setup_for_execution(self, context: InitResourceContext) -> None:
        self._ready = f"{self.name} is ready"


class Cluster(ConfigurableResource[PipesClient]):
    """Gives a client, once what it needs is set up."""

    account: Account

    def create_resource(self, context: InitResourceContext) -> PipesClient:
        client = KindlingSubmitClient("local[1]")
        client.account = self.account._ready  # type: ignore[attr-defined]
        return client


def seen_by_a_step(resources: dict[str, Any], config: dict[str, Any] | None = None) -> KindlingResource:
    """The resource that a step gets."""
    got: list[KindlingResource] = []

    @asset
    def looks(context: AssetExecutionContext, kindling: KindlingResource) -> None:
        got.append(kindling)

    with DagsterInstance.ephemeral() as instance:
        assert materialize(
            [looks], instance=instance, resources=resources, run_config={"resources": config or {}}
        ).success
    return got[0]


def test_a_client_that_is_no_resource() -> None:
    client = KindlingSubmitClient("local[1]")
    seen = seen_by_a_step({"kindling": KindlingResource(engine=PipesEngine(client=client))})
    assert isinstance(seen.engine, PipesEngine)
    assert seen.engine.client is client


def test_a_client_that_a_resource_makes_from_another_resource() -> None:
    engine = PipesEngine(client=Cluster(account=Account(name="given")))
    seen = seen_by_a_step({"kindling": KindlingResource(engine=engine)})
    assert isinstance(seen.engine.client, KindlingSubmitClient)
    assert seen.engine.client.account == "given is ready"


def test_everything_configured_at_launch() -> None:
    """Three levels deep, and beside it: none of it is known when the definitions load."""
    account = Account.configure_at_launch()
    spark = LazyPySparkResource.configure_at_launch()
    kindling = KindlingResource(spark=spark, engine=PipesEngine(client=Cluster(account=account)))
    seen = seen_by_a_step(
        {"account": account, "spark": spark, "kindling": kindling},
        {
            "account": {"config": {"name": "launched"}},
            "spark": {"config": {"spark_config": {"spark.driver.memory": "3g"}}},
        },
    )
    assert seen.engine.client.account == "launched is ready"
    assert seen.spark.spark_config == {"spark.driver.memory": "3g"}


def test_an_engine_configured_at_launch() -> None:
    engine = WarmEngine.configure_at_launch()
    seen = seen_by_a_step(
        {"engine": engine, "kindling": KindlingResource(engine=engine)},
        {"engine": {"config": {"idle_minutes": 3}}},
    )
    assert isinstance(seen.engine, WarmEngine)
    assert seen.engine.idle_minutes == 3


def test_an_io_manager_s_resource_configured_at_launch(tmp_path: Any) -> None:
    manifest(pipe("p", "src.a", "out.a")).write(tmp_path / "manifest.json")
    kindling = KindlingResource.configure_at_launch()
    project = KindlingProject(manifest=tmp_path / "manifest.json")
    got: list[KindlingResource] = []

    @asset(required_resource_keys={"reads"})
    def looks(context: AssetExecutionContext) -> None:
        got.append(context.resources.reads.kindling)

    with DagsterInstance.ephemeral() as instance:
        materialize(
            [looks],
            instance=instance,
            resources={"kindling": kindling, "reads": KindlingIOManager(project, kindling=kindling)},
            run_config={"resources": {"kindling": {"config": {"storage_options": {"region": "x"}}}}},
        )
    assert got[0].storage_options == {"region": "x"}
