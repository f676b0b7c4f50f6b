"""What a running isoproxy says of itself: pure functions of what was collected."""
