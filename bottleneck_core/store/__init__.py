"""Run folders: their layout, their events and analysis files, and readers that never fail on a broken one."""
