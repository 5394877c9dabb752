"""One function per command: the only place that joins the parts."""
