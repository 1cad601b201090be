"""Pure PySpark functions, without Kindling: testable with nothing but a Spark session."""
