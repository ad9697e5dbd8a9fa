"""Floor 2: where state is kept that outlives one decision: in this process, or in a file that workers share."""
