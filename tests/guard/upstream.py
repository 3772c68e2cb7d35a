"""An upstream each of whose answers comes in one piece: to read one in two costs more, and that is up to chance.

It answers every request for a session context with the document that it is given as its argument.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Final

_TOKEN: Final = (
    b'{"access_token": "a", "token_type": "Bearer", "expires_in": 3600,'
    b' "scope": "tenant=acme sessioncontext.context_manage"}'
)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            break
        if length := re.search(rb"content-length: (\d+)", head):
            await reader.readexactly(int(length[1]))
        body = _TOKEN if head.startswith(b"POST") else sys.argv[1].encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
    writer.close()


async def main() -> None:
    """Answer until it is stopped."""
    async with await asyncio.start_server(_answer, "127.0.0.1", 0) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
