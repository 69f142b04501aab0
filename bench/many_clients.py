"""Pulls one kit with many clients at once, in threads of one process: `many_clients.py COUNT REFERENCE`."""

import sys
from concurrent.futures import ThreadPoolExecutor

from kitd_client import Client
from kitd_client.context import Network


def pull(reference: str) -> str:
    with Client() as client:
        return client.pull(reference, network=Network(plain_http=True)).digest


def main() -> None:
    count, reference = int(sys.argv[1]), sys.argv[2]
    with ThreadPoolExecutor(count) as threads:
        digests = set(threads.map(pull, [reference] * count))
    if len(digests) != 1:
        raise SystemExit(f"different kits: {digests}")


if __name__ == "__main__":
    main()
