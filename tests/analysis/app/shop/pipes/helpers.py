def price_of(orders):
    return orders.withColumn("price", orders["cost"] * 2)
