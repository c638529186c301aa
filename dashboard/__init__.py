"""The Streamlit face: pages, session state, the live chart. Figures and data come from `bottleneck_core`."""
