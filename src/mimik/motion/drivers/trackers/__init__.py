"""Face trackers that send packets over the network: one file for each protocol, and a line for it in kinds.py."""
