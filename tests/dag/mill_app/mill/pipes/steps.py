from kindling.data_pipes import DataPipes

from mill import switches


def pipe(pipe_id, inputs, output, **more):
    @DataPipes.pipe(
        pipeid=pipe_id,
        name=pipe_id,
        tags={},
        input_entity_ids=inputs.split(),
        output_entity_id=output,
        output_type="table",
        **more,
    )
    def step(**frames):
        return switches.run(pipe_id, frames)


pipe("a", "lake.grain", "out.a")
pipe("b", "lake.grain", "out.b")
pipe("c", "lake.grain", "out.c")
pipe("after", "out.a lake.grain", "out.after")
pipe("keep", "lake.grain", "lake.kept")

pipe("start", "lake.grain", "out.start")
pipe("slow", "out.start", "out.slow")
pipe("fast", "out.start", "out.fast")
pipe("after_fast", "out.fast", "out.after_fast")
pipe("end", "out.slow out.after_fast", "out.end")

pipe("first", "lake.grain", "out.both")
pipe("second", "out.start", "out.both")
pipe("read", "out.both", "out.read")
