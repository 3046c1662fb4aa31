"""Tests of the arithmetic, the rendering and the handling of processes."""
