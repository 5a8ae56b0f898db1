"""The runner: units of (specialist, shard), in this process or on pools of Ray actors."""
