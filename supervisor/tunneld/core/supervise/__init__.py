"""The rules of supervision: states, backoff, liveness, failover, canaries. Pure; time and chance are arguments."""
