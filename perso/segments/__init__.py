"""Customers in named groups, from their events alone. No Ray and no Feast in here."""
