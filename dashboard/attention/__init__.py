"""The Attention page: metrics by head, maps, alarms."""
