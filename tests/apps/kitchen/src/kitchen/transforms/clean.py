"""Row filters."""

from kitchen.transforms import rules


def drop_bad(orders, lookup):
    return orders.join(lookup, "order_id").filter(rules.GOOD)
