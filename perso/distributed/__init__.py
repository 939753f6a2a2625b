"""Couriers: they move data and functions over Ray. Rules live in the module of the same name."""
