-- One row per route: what gold.worst_routes ranks.
SELECT
  origin,
  dest,
  MAX(dest_name)                                AS dest_name,
  COUNT(*)                                      AS flights,
  COUNT(CASE WHEN cancelled THEN 1 END)         AS cancelled,
  COUNT(arr_delay_min)                          AS arrived,
  COUNT(CASE WHEN late THEN 1 END)              AS late,
  SUM(arr_delay_min)                            AS arr_delay_total_min,
  MAX(distance_mi)                              AS distance_mi
FROM silver_flights_enriched
GROUP BY origin, dest
