"""Training: loop, step, optimiser, schedule, memory, and the state that resuming needs."""
