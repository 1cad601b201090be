"""What is good."""

GOOD = "amount > 0"
