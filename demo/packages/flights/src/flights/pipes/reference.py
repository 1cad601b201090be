"""Landing → reference: the dimensions."""

from kindling.data_pipes import DataPipes

from flights.transforms import landed


@DataPipes.pipe(
    pipeid="ref.airlines",
    name="Airlines",
    tags={"layer": "reference"},
    input_entity_ids=["landing.airlines"],
    output_entity_id="ref.airlines",
    output_type="table",
)
def airlines(landing_airlines):
    """Carrier codes and the names behind them."""
    return landed.type_airlines(landing_airlines)


@DataPipes.pipe(
    pipeid="ref.airports",
    name="Airports",
    tags={"layer": "reference"},
    input_entity_ids=["landing.airports"],
    output_entity_id="ref.airports",
    output_type="table",
)
def airports(landing_airports):
    """Airports: name, place, height and time zone."""
    return landed.type_airports(landing_airports)


@DataPipes.pipe(
    pipeid="ref.planes",
    name="Planes",
    tags={"layer": "reference"},
    input_entity_ids=["landing.planes"],
    output_entity_id="ref.planes",
    output_type="table",
)
def planes(landing_planes):
    """The aircraft register with its history: a changed plane gets a new version."""
    return landed.type_planes(landing_planes)
