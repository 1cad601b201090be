"""Flights out of New York City: from the carriers' raw files to who is late, where and why."""
