"""Frames and arrays to plotly figures, for pages and notebooks alike. No torch, no streamlit."""
