"""What a search tries, what one trial does, which trial wins and whether it may serve."""
