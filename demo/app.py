"""flights-app — Kindling app entrypoint.

Run locally:    kindling app run . --local-package packages/flights

Entities and pipes are declared in the flights package
(see lake-reqs.txt) and registered automatically -- no imports needed here.
"""

import logging

if __name__ == "__main__":
    logging.getLogger(__name__).info("flights-app is registered and ready.")
