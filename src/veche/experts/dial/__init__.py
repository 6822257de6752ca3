"""Turn a setting that moves no weight, and measure what it costs."""
