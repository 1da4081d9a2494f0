"""What a stream costs, whether one more fits, and how quality gives way."""
