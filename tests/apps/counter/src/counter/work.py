from kindling.data_pipes import DataPipes


@DataPipes.pipe(
    pipeid="counted",
    name="counted",
    tags={},
    input_entity_ids=["words"],
    output_entity_id="counts",
    output_type="delta",
)
def count_words(words):
    """How often each word comes."""
    return words.groupBy("word").count().withColumnRenamed("count", "n")
