"""What scripts share beside their own story: flags of a process model, and inversions by it or window by window."""
