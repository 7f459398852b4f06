"""Results of several models side by side: tables, plots, neighbour grids and a page."""
