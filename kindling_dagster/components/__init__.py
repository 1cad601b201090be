"""The component for ``dg``: a Kindling app in a ``defs.yaml``."""
