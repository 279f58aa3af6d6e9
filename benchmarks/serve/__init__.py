"""Serving beside a handler that scores one request at a time, and a soak that checks answers."""
