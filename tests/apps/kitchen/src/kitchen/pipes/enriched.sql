SELECT o.*, p.category
FROM silver_orders o JOIN silver_products p ON o.order_id = p.product_id
