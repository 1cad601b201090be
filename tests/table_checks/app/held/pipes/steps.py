from kindling.data_pipes import DataPipes


def pipe(inputs, output, use_watermark=False):
    return DataPipes.pipe(
        pipeid=output.replace(".", "_"),
        name=output,
        tags={},
        input_entity_ids=[inputs],
        output_entity_id=output,
        output_type="table",
        use_watermark=use_watermark,
    )


def with_keys(raw_rows):
    return raw_rows.filter("id IS NOT NULL")


for written in ("kept", "twice", "moved", "people", "broken_people", "known", "widened"):
    pipe("raw.rows", f"silver.{written}")(with_keys)


@pipe("raw.rows", "silver.nulls")
def all_rows(raw_rows):
    return raw_rows


@pipe("silver.twice", "gold.of_twice")
def of_twice(silver_twice):
    return silver_twice


@pipe("silver.kept", "gold.of_kept")
def of_kept(silver_kept):
    return silver_kept
