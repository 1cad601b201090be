"""So much of S3's reading side as deltalake asks for: a folder as the bucket ``lake``, for one access key.

A process of its own: deltalake can hold Python's lock while it waits for an answer.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


def _listing(names: list[str], root: Path) -> str:
    contents = "".join(
        f"<Contents><Key>{name}</Key><Size>{(root / name).stat().st_size}</Size><ETag>e</ETag>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for name in names
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"


def _handler(root: Path, key: str) -> type[BaseHTTPRequestHandler]:
    class Bucket(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            if f"Credential={key}/" not in self.headers.get("Authorization", ""):
                self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            elif "list-type" in query:
                names = sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())
                prefix, after = query.get("prefix", ""), query.get("start-after", "")
                found = [name for name in names if name.startswith(prefix) and name > after]
                self._answer(200, _listing(found, root).encode())
            else:
                file = root / unquote(url.path).removeprefix("/lake/")
                if file.is_file():
                    self._answer(200, file.read_bytes())
                else:
                    self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

        do_HEAD = do_GET

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.send_header("ETag", "e")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Keep quiet."""

    return Bucket


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(Path(sys.argv[1]), sys.argv[2]))
    print(server.server_port, flush=True)
    server.serve_forever()
