"""Benchmarks: settings of ours and stock modes against plain decoding, interleaved prompt by prompt.

Ratios are taken between neighbours in time, so that they hold on a noisy machine; counts (passes, rows) do not
depend on the machine at all. prompts -> runs -> results -> summary -> tables and report.
"""
