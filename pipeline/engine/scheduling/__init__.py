"""Windows of many callers side by side on one device."""
