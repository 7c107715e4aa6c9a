"""Moving from Advanced Ads, the WordPress plugin: what it keeps, as a catalog, and what of it has no equal here."""
