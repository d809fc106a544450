"""From coarse frames to atoms: chain, plan, driver."""
