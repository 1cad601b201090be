"""What pipes do instead of handing on their first input, and which were called: for tests in the same process."""

bodies = {}
called = []


def run(pipe_id, frames):
    called.append(pipe_id)
    frame = next(iter(frames.values()))
    body = bodies.get(pipe_id)
    made = body(frame) if body else None
    return frame if made is None else made


def reset():
    bodies.clear()
    called.clear()
