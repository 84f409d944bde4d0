"""Remembered responses: joins entries and calibration with store, engines and tenants."""
