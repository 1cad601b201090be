"""Bronze to silver."""

from kindling.data_pipes import DataPipes

from kitchen.transforms.clean import drop_bad


@DataPipes.pipe(
    pipeid="silver.orders",
    name="Clean orders",
    tags={"tier": "critical"},
    input_entity_ids=["bronze.orders", "bronze.lookup"],
    output_entity_id="silver.orders",
    output_type="delta",
)
def clean_orders(bronze_orders, bronze_lookup):
    """Drop orders that cannot be.

    The lookup says which.
    """
    return drop_bad(bronze_orders, bronze_lookup)


@DataPipes.pipe(
    pipeid="silver.customers",
    name="Customers",
    tags={"processing_mode": "streaming"},
    input_entity_ids=["bronze.events", "silver.orders"],
    output_entity_id="silver.customers",
    output_type="delta",
    driving_entity_ids=["bronze.events", "silver.orders"],
)
def customers(bronze_events, silver_orders, limit=10):
    return bronze_events.join(silver_orders).limit(limit)


DataPipes.clone("silver.orders_eu", from_pipe="silver.orders", output_entity_id="silver.orders_eu")
DataPipes.extend(
    "silver.customers",
    add_inputs=["silver.products"],
    transform=lambda previous, silver_products: previous.join(silver_products),
    tags={"extended": "yes"},
)
